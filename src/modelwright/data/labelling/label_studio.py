"""Label Studio's task JSON: what others labelled, and what we labelled, in and out.

A task is ``{"id", "data", "predictions": [{"model_version", "score", "result"}],
"annotations": [{"completed_by", "lead_time", "was_cancelled", "ground_truth", "result"}]}``, a
file is a list of tasks (labelstud.io, "Label Studio JSON format of annotated tasks"). Choices,
rectangles and text areas are understood; results of other types and fields that are not ours
are kept as they are, so that nothing is lost on the way through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from modelwright.errors import ModelwrightError
from modelwright.files import replace_file

Json = dict[str, Any]


@dataclass(frozen=True)
class Choices:
    """The chosen label or labels."""

    choices: tuple[str, ...]
    from_name: str = "label"
    to_name: str = "text"
    more: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """A rectangle; x, y, width and height in per cent of the image, rotation in degrees."""

    x: float
    y: float
    width: float
    height: float
    labels: tuple[str, ...]
    rotation: float = 0.0
    from_name: str = "label"
    to_name: str = "image"
    more: Json = field(default_factory=dict)

    def pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in an image of that size, before the rotation."""
        left, top = self.x / 100 * width, self.y / 100 * height
        return left, top, left + self.width / 100 * width, top + self.height / 100 * height


@dataclass(frozen=True)
class TextArea:
    """What somebody wrote."""

    text: tuple[str, ...]
    from_name: str = "answer"
    to_name: str = "text"
    more: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Other:
    """A result of a type that is not used here, as it was."""

    raw: Json


Result = Choices | Box | TextArea | Other


@dataclass(frozen=True)
class Prediction:
    """What a model proposed."""

    results: tuple[Result, ...]
    model_version: str | None = None
    score: float | None = None
    more: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """What a person said; ``lead_time`` in seconds, ``was_cancelled`` where it was skipped."""

    results: tuple[Result, ...]
    completed_by: int | str | None = None
    lead_time: float | None = None
    was_cancelled: bool = False
    ground_truth: bool = False
    more: Json = field(default_factory=dict)

    @property
    def choice(self) -> str | None:
        """The label, if it is one of exactly one choice and was not skipped."""
        found = [r.choices for r in self.results if isinstance(r, Choices)]
        single = len(found) == 1 and len(found[0]) == 1 and not self.was_cancelled
        return found[0][0] if single else None


@dataclass(frozen=True)
class Task:
    """One item with all that was said about it."""

    id: int | str | None
    data: Json
    predictions: tuple[Prediction, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    more: Json = field(default_factory=dict)


def read_tasks(path: Path) -> list[Task]:
    """The tasks of an exported file.

    Raises:
        ModelwrightError: no such file, not JSON, or not of the format; says where.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise ModelwrightError(
            f"{path}: not readable JSON ({error}); export the project as JSON again"
        ) from None
    return tasks_of(values, str(path))


def tasks_of(values: Any, where: str = "tasks") -> list[Task]:
    """Tasks of parsed JSON.

    Raises:
        ModelwrightError: not of the format; says which field.
    """
    if not isinstance(values, list):
        raise ModelwrightError(f"{where}: a list of tasks is meant; export the project as JSON")
    return [_task(value, f"{where}[{i}]") for i, value in enumerate(values)]


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write the tasks as one JSON list, whole or not at all."""
    text = json.dumps([task_json(t) for t in tasks], ensure_ascii=False, indent=1)
    replace_file(path, (text + "\n").encode("utf-8", "surrogatepass"))


def task_json(task: Task) -> Json:
    """A task as Label Studio writes it."""
    value: Json = {**task.more, "data": task.data}
    if task.id is not None:
        value["id"] = task.id
    value["predictions"] = [
        {
            **p.more,
            "model_version": p.model_version,
            "score": p.score,
            "result": [_result_json(r) for r in p.results],
        }
        for p in task.predictions
    ]
    value["annotations"] = [
        {
            **a.more,
            "completed_by": a.completed_by,
            "lead_time": a.lead_time,
            "was_cancelled": a.was_cancelled,
            "ground_truth": a.ground_truth,
            "result": [_result_json(r) for r in a.results],
        }
        for a in task.annotations
    ]
    return value


def interface(labels: Sequence[str], column: str = "text", *, image: bool = False) -> str:
    """The labelling interface (XML) under which exported choices can be imported there."""
    shown = "Image" if image else "Text"
    name = "image" if image else "text"
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f"<View>\n  <{shown} name={quoteattr(name)} value={quoteattr('$' + column)}/>\n"
        f'  <Choices name="label" toName={quoteattr(name)} choice="single">\n{choices}\n'
        "  </Choices>\n</View>\n"
    )


def _result_json(result: Result) -> Json:
    if isinstance(result, Other):
        return result.raw
    value: Json
    if isinstance(result, Choices):
        kind, value = "choices", {"choices": list(result.choices)}
    elif isinstance(result, TextArea):
        kind, value = "textarea", {"text": list(result.text)}
    else:
        kind = "rectanglelabels"
        names = ("x", "y", "width", "height", "rotation")
        value = {name: getattr(result, name) for name in names}
        value["rectanglelabels"] = list(result.labels)
    names_of = {"from_name": result.from_name, "to_name": result.to_name}
    return {**result.more, **names_of, "type": kind, "value": value}


def _task(value: Any, where: str) -> Task:
    fields = _mapping(value, where)
    number = fields.pop("id", None)
    if number is not None and (isinstance(number, bool) or not isinstance(number, (int, str))):
        raise _wrong(f"{where}.id", "a number or a string")
    data = _mapping(fields.pop("data", None), f"{where}.data")
    predictions = _list(fields.pop("predictions", []), f"{where}.predictions")
    annotations = _list(fields.pop("annotations", []), f"{where}.annotations")
    return Task(
        number,
        data,
        tuple(_prediction(p, f"{where}.predictions[{i}]") for i, p in enumerate(predictions)),
        tuple(_annotation(a, f"{where}.annotations[{i}]") for i, a in enumerate(annotations)),
        fields,
    )


def _prediction(value: Any, where: str) -> Prediction:
    fields = _mapping(value, where)
    results = _results(fields.pop("result", []), where)
    version = fields.pop("model_version", None)
    if version is not None and not isinstance(version, str):
        raise _wrong(f"{where}.model_version", "a string")
    return Prediction(results, version, _number(fields.pop("score", None), where, "score"), fields)


def _annotation(value: Any, where: str) -> Annotation:
    fields = _mapping(value, where)
    results = _results(fields.pop("result", []), where)
    who = fields.pop("completed_by", None)
    if isinstance(who, dict):  # some exports hold the whole person
        who = who.get("email") or who.get("id")
    if who is not None and (isinstance(who, bool) or not isinstance(who, (int, str))):
        raise _wrong(f"{where}.completed_by", "a number or a string")
    flags = {name: fields.pop(name, None) or False for name in ("was_cancelled", "ground_truth")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise _wrong(f"{where}.{name}", "true or false")
    seconds = _number(fields.pop("lead_time", None), where, "lead_time")
    return Annotation(results, who, seconds, **flags, more=fields)


def _results(values: Any, where: str) -> tuple[Result, ...]:
    listed = _list(values, f"{where}.result")
    return tuple(_result(value, f"{where}.result[{i}]") for i, value in enumerate(listed))


def _result(value: Any, where: str) -> Result:
    fields = _mapping(value, where)
    kind = fields.get("type")
    inner: Any = fields.get("value")
    names = fields.get("from_name"), fields.get("to_name")
    keys = {
        "choices": {"choices"},
        "textarea": {"text"},
        "rectanglelabels": {"x", "y", "width", "height", "rotation", "rectanglelabels"},
    }.get(str(kind))
    plain = isinstance(inner, dict) and isinstance(names[0], str) and isinstance(names[1], str)
    if keys is None or not plain or set(inner) - keys:
        return Other(dict(fields))
    more = {k: v for k, v in fields.items() if k not in ("type", "value", "from_name", "to_name")}
    named: Json = {"from_name": names[0], "to_name": names[1], "more": more}
    if kind == "choices":
        return Choices(_strings(inner.get("choices"), f"{where}.value.choices"), **named)
    if kind == "textarea":
        text = inner.get("text")
        lines = [text] if isinstance(text, str) else text
        return TextArea(_strings(lines, f"{where}.value.text"), **named)
    sides: Json = {
        k: _side(inner.get(k), f"{where}.value.{k}") for k in ("x", "y", "width", "height")
    }
    turn = _side(inner.get("rotation", 0.0), f"{where}.value.rotation")
    labels = _strings(inner.get("rectanglelabels"), f"{where}.value.rectanglelabels")
    return Box(**sides, labels=labels, rotation=turn, **named)


def _side(value: Any, where: str) -> float:
    number = _number(value, where, "")
    if number is None:
        raise _wrong(where, "a number")
    return number


def _number(value: Any, where: str, name: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise _wrong(f"{where}.{name}".rstrip("."), "a finite number")
    return value if isinstance(value, float) else float(value)


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise _wrong(where, "a list of strings")
    return tuple(value)


def _mapping(value: Any, where: str) -> Json:
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object")
    return dict(value)


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(where, "a list")
    return value


def _wrong(where: str, meant: str) -> ModelwrightError:
    return ModelwrightError(f"{where}: {meant} is meant there; correct it or export it again")
