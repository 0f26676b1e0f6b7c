"""Answers graded one by one: kept beside the evaluation, divided into slices, the worst shown.

``graded/STAGE.jsonl`` of a run has a line for every answer of its test part,
``graded/on-FILE.jsonl`` for every answer on a file of the user's (``on_file``). Two runs that were
asked the same are compared on these lines (``pipeline.paired``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.files import make_folder, replace_file
from modelwright.pipeline import sliced
from modelwright.pipeline.asked import in_words, key_of
from modelwright.runs import Run
from modelwright.tasks.task import Task
from modelwright.types import Array, Example, Row, Turn

FOLDER = "graded"
ON = "on-"  # before the name of a file that was asked with --on
LENGTHS = 4  # slices by length, of equally many answers
WORST = 12  # shown
_TEXT = 2000  # characters of a question that are kept


class Beside(NamedTuple):
    """What is known of examples beside their answers.

    ``columns`` to slice by, a value for every example; ``rows``: of which row each of them is,
    empty where each is of a row of its own.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]


def keep(
    run: Run,
    stage: str,
    task: Task,
    pairs: Sequence[tuple[Example, Turn]],
    result: dict[str, Any],
    *,
    beside: Beside | None = None,
) -> None:
    """Grade examples with their answers, write them down, add ``slices`` and ``worst`` to a result.

    Nothing is done where the task grades no single answers. ``beside`` is what ``keep_columns``
    wrote where it is left out.
    """
    if type(task).grade is Task.grade or not pairs:
        return
    lines = [_line(task, example, answer) for example, answer in pairs]
    if beside is None:
        written = (run.read_json(name(stage)) for name in (_columns_file, _rows_file))
        beside = Beside(next(written) or {}, next(written) or [])
    columns, rows = beside
    if columns and len(next(iter(columns.values()))) == len(lines):  # not a sample of the part
        for number, line in enumerate(lines):
            line["columns"] = {name: values[number] for name, values in columns.items()}
    if len(rows) == len(lines):
        for line, row in zip(lines, rows, strict=True):
            line["row"] = row
    write(run, stage, lines)
    result.setdefault("slices", []).extend(slices(stage, task, lines))
    result.setdefault("worst", []).extend(worst(task, lines))


def write(run: Run, stage: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write graded answers down; ``stage``: of the run, or a name of the file that was asked."""
    path = run.path / FOLDER / f"{stage}.jsonl"
    make_folder(path.parent)
    replace_file(path, "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode())


def short(text: str) -> str:
    """As much of a text as is kept."""
    return text[:_TEXT]


def keep_columns(
    run: Run,
    stage: str,
    task: Task,
    examples: Sequence[Example],
    *,
    rows: Sequence[Row],
    counts: Sequence[int],
) -> None:
    """Write down what the examples of the test part have in the columns to slice by.

    Where a row has given several, it is written down which are of one row as well.

    Args:
        run: whose recipe names the columns in ``evaluate.slices``.
        stage: "train" or "tune".
        task: which reads the columns of an example.
        examples: of the part.
        rows: of the part.
        counts: how many examples each of them has given.

    Raises:
        ModelwrightError: a row lacks a column.
    """
    if len(rows) != len(counts) or len(examples) != sum(counts):
        return
    of = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
    found = beside_of(run.recipe.evaluate.slices, task, examples, of, "evaluate.slices")
    if found.rows:
        run.write_json(_rows_file(stage), found.rows)
    if found.columns:
        run.write_json(_columns_file(stage), found.columns)


def beside_of(
    columns: Sequence[str], task: Task, examples: Sequence[Example], of: Sequence[Row], where: str
) -> Beside:
    """What examples have in columns of their rows, and which are of one row.

    Args:
        columns: by name.
        task: which reads the columns of an example.
        examples: of the rows.
        of: the row of each of them.
        where: what names the columns, for messages.

    Raises:
        ModelwrightError: a row lacks a column.
    """
    names = [str(row.get("id")) for row in of]
    found: dict[str, list[Any]] = {}
    for column in columns:
        try:
            pairs = zip(of, examples, strict=True)
            found[column] = [sliced.kept(task.column(row, column, e)) for row, e in pairs]
        except KeyError as error:
            row = next((row for row in of if column not in row), of[0])
            raise ModelwrightError(
                f"{where}: row {row.get('id', '?')} has no column {column!r}"
                f"{did_you_mean(column, row)}; it has {', '.join(map(str, row))}"
            ) from error
    return Beside(found, names if len(set(names)) < len(names) else [])


def _columns_file(stage: str) -> str:
    return f"data/{stage}/test-columns.json"


def _rows_file(stage: str) -> str:
    return f"data/{stage}/test-rows.json"


def _line(task: Task, example: Example, answer: Turn) -> dict[str, Any]:
    asked = "\n".join(turn.said for turn in example.given)
    return {
        "key": key_of(example.given),
        "grade": (grade := task.grade(example, answer)),
        "right": grade == task.grade(example, example.answer),
        "marks": dict(task.marks(example, answer)),
        "measure": task.measure,
        "better": task.better,
        "kind": task.kind(example),
        "length": len(asked),
        "question": short(in_words(example.given)),
        "reference": short(example.answer.said),
        "answer": short(answer.said),
    }


def slices(stage: str, task: Task, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean grade by length of what is asked, by kind, and by the columns that are kept.

    By columns other marks of the answers have their means as well.
    """
    grades = np.array([line["grade"] for line in lines], dtype=np.float64)
    rows = np.array([line["row"] for line in lines]) if "row" in lines[0] else None
    lengths = np.array([line["length"] for line in lines])
    found = []
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTHS + 1)[1:-1]).astype(int))
    part = np.searchsorted(edges, lengths, side="left")
    names = [*(f"up to {edge:,} characters" for edge in edges), "longer"]
    chosen = [(name, part == i) for i, name in enumerate(names) if (part == i).any()]
    graded_by = {"measure": task.measure, "better": task.better, **lines[0]}
    about = {"stage": stage, "unit": graded_by["measure"], "better": graded_by["better"]}
    if len(chosen) > 1:
        found.append({**about, "by": "length", "rows": _means(chosen, grades, rows)})
    values_of = {"kind": [str(line["kind"]) for line in lines]}
    for column in lines[0].get("columns", {}):
        values_of[column] = [line["columns"][column] for line in lines]
    for by, values in values_of.items():
        if len(several := sliced.parts_of(by, values)) < 2:
            continue
        found.append({**about, "by": by, "rows": _means(several, grades, rows)})
        for mark in lines[0].get("marks", {}) if by != "kind" else {}:
            marks = np.array([line["marks"][mark] for line in lines], dtype=np.float64)
            other = {**about, "by": by, "unit": mark, "better": "higher"}
            found.append({**other, "rows": _means(several, marks, rows)})
    return found


def _means(
    parts: Sequence[tuple[str, Array]], grades: Array, rows: Array | None
) -> list[dict[str, Any]]:
    found = []
    for name, inside in parts:
        some = grades[inside]
        low, high = sliced.interval(some, None if rows is None else rows[inside])
        row = {"which": name or "(none)", "count": len(some), "value": float(some.mean())}
        found.append({**row, "low": low, "high": high})
    return found


def worst(task: Task, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The worst answers that are not right, as the examples of an evaluation are written."""
    sign = 1 if task.better == "higher" else -1
    below = [line for line in lines if not line["right"]]
    return [
        {**{k: line[k] for k in ("key", "question", "reference", "answer")}, "score": line["grade"]}
        for line in sorted(below, key=lambda line: sign * line["grade"])[:WORST]
    ]


def read(run: Run, stage: str) -> list[dict[str, Any]]:
    """What ``keep`` wrote.

    Raises:
        ModelwrightError: nothing was graded.
    """
    path = run.path / FOLDER / f"{stage}.jsonl"
    if not path.is_file():
        raise ModelwrightError(
            f"{run.path}: no graded answers of {stage}; evaluate it first: modelwright evaluate"
            f" {run.path}"
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lines(result: dict[str, Any]) -> list[str]:
    """The slices and the worst answers for people."""
    said = []
    for part in result.get("slices", []):
        said.append(f"{part['unit']} by {part['by']}:")
        said += [
            f"  {row['which']}: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f},"
            f" {row['count']:,} answers)"
            for row in part["rows"]
        ]
    if worst := result.get("worst", [])[:3]:
        said.append("the worst answers:")
    for one in worst:
        if not one["reference"] and not one["answer"]:  # a text that is measured, not answered
            said.append(f"  {_short(one['question'])} ({one['score']:.3g})")
            continue
        said += [
            f"  {_short(one['question'])}",
            f"    meant {_short(one['reference'])}",
            f"    said  {_short(one['answer'])} ({one['score']:.3g})",
        ]
    return said


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:157] + "..."
