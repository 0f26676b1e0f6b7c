"""Questions of any kind as a client sends them, and answers of any kind as it is told them.

Which kinds a model reads, its task's own specimen shows: the parts of its question.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.serving import limits
from modelwright.serving.media import IMAGE, SOUND, Decoder, FormPart, kind_of, of_text
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.types import (
    Answer,
    Box,
    Example,
    Frames,
    Image,
    ImageFile,
    Label,
    Number,
    Part,
    Row,
    Sound,
    Span,
    Text,
    Turn,
)

TEXT, NUMBERS = "text", "numbers"
# What a part of a question is called on the wire; whatever else there is, is typed as text.
_KINDS: dict[type[Any], str] = {
    Image: IMAGE,
    ImageFile: IMAGE,
    Sound: SOUND,
    Frames: NUMBERS,
    Number: NUMBERS,
}
# Parts of an answer that are told by their fields, and under which name.
_TOLD: dict[type[Any], str] = {
    Text: "text",
    Label: "label",
    Number: "number",
    Box: "box",
    Span: "span",
}
KINDS = (TEXT, NUMBERS, IMAGE, SOUND)
TYPES = {".png": "image/png", ".wav": "audio/wav"}  # of answers that are files


class _Task(Protocol):
    @property
    def specimen(self) -> Row: ...

    def examples(self, row: Row) -> Any: ...

    def request(self, text: str) -> Sequence[Turn]: ...


def facts(task: _Task, codec: object) -> dict[str, Any]:
    """``inputs``: the kinds that a question may have; ``labels`` of a closed set of answers."""
    try:
        found = task.examples(task.specimen)
    except ModelwrightError:  # its options name the columns of somebody's rows
        found = type(task)().examples(task.specimen)
    parts: list[Part] = []
    for example in () if isinstance(found, str) else found:
        if isinstance(example, Example):
            parts += [part for turn in example.given for part in turn.parts]
    kinds = list(dict.fromkeys(_KINDS.get(type(part), TEXT) for part in parts)) or [TEXT]
    if IMAGE in kinds and NUMBERS not in kinds:
        kinds.append(NUMBERS)  # pixels as they are
    if TEXT not in kinds:
        kinds.append(TEXT)  # a data URL, or numbers as JSON
    labels = getattr(codec, "labels", None)
    known: dict[str, Any] = {"inputs": kinds}
    if labels:
        known["labels"] = list(labels)
    front = getattr(codec, "front", None)
    if front is not None:
        known["reads"] = [
            {"name": r.name, "shape": list(r.shape), "about": r.about} for r in front().reads
        ]
    return known


class Item(Body):
    """One question, in one of its kinds."""

    text: Annotated[str, Field(max_length=limits.TEXT)] | None = None
    numbers: list[JsonValue] | float | None = None
    image: str | None = None
    audio: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Item:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give one of text, numbers, image and audio")
        return self


def _item(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) and len(value) <= limits.TEXT else value


class PredictRequest(Body):
    """The body of POST /predict."""

    model: Annotated[str, Field(max_length=256)] | None = None
    inputs: Annotated[
        list[Annotated[Item, BeforeValidator(_item)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value),
        Field(min_length=1, max_length=limits.ROWS),
    ]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None


class PredictForm(Body):
    """The fields of a form of POST /predict beside its questions, all of them text."""

    ignored: ClassVar[frozenset[str]] = frozenset({TEXT})  # which are questions
    model: Annotated[str, Field(max_length=256)] = ""
    seed: str = ""

    @field_validator("seed")
    @classmethod
    def _whole(cls, value: str) -> str:
        if value and not (value.isascii() and value.isdecimal() and len(value) < 18):
            raise ValueError("must be a whole number from 0, of 17 digits at most")
        return value

    @classmethod
    def of(cls, parts: Sequence[FormPart]) -> PredictForm:
        """The fields of a form; those that are files are questions, whatever they are called.

        Raises:
            ApiError: one is unknown, or wrong.
        """
        given = {p.name: "" if p.name == TEXT else p.text for p in parts if p.filename is None}
        return parse(cls, json.dumps(given).encode())


def schema(known: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a body of POST /predict, for the kinds that this model reads."""
    kinds: dict[str, Any] = {
        TEXT: {"type": "string", "maxLength": limits.TEXT},
        NUMBERS: {"type": "array", "description": "nested lists of numbers"},
        IMAGE: {"type": "string", "contentEncoding": "base64", "description": "a picture's file"},
        SOUND: {"type": "string", "contentEncoding": "base64", "description": "a sound file"},
    }
    if "reads" in known:
        about = "; ".join(f"{r['name']} {r['shape']}: {r['about']}" for r in known["reads"])
        kinds[NUMBERS]["description"] = about
    offered = [
        {
            "type": "object",
            "properties": {kind: kinds[kind]},
            "required": [kind],
            "additionalProperties": False,
        }
        for kind in known["inputs"]
    ]
    item = {"anyOf": [{"type": "string", "maxLength": limits.TEXT}, *offered]}
    return {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string"},
            "inputs": {"type": "array", "items": item, "minItems": 1, "maxItems": limits.ROWS},
            "seed": {"type": "integer", "minimum": 0},
        },
    }


class Asking:
    """Makes turns of what a client sends; files are decoded in a child, and nothing is fetched."""

    def __init__(self, request: Callable[[str], Sequence[Turn]]) -> None:
        self._request = request
        self.decoder = Decoder()

    def typed(self, text: str, param: str = "messages") -> Sequence[Turn]:
        """The turns of a text, which may be a data URL.

        Raises:
            ApiError: the model cannot read it.
        """
        for kind in (IMAGE, SOUND):
            if text.startswith(f"data:{kind}/"):
                return self.file(of_text(text, kind, param), param)
        try:
            return self._request(text)
        except (CorruptError, MachineError):  # the server's own
            raise
        except ModelwrightError as error:
            raise ApiError(400, str(error), param=param, code="invalid_question") from error

    def file(self, content: bytes, param: str, kind: str = "") -> Sequence[Turn]:
        """The turns of a picture or a recording.

        Raises:
            ApiError: it cannot be decoded.
        """
        part: Part
        if (kind or kind_of(content)) == SOUND:
            part = self.decoder.sound(content, param)
        else:
            part = self.decoder.picture(content, param)
        return (Turn("user", (part,)),)

    def item(self, item: Item, param: str) -> Sequence[Turn]:
        """The turns of one question.

        Raises:
            ApiError: the model cannot read it.
        """
        if item.image is not None:
            return self.file(of_text(item.image, IMAGE, param), param, IMAGE)
        if item.audio is not None:
            return self.file(of_text(item.audio, SOUND, param), param, SOUND)
        text = json.dumps(item.numbers) if item.text is None else item.text
        return self.typed(text, param)

    def parts(self, given: Sequence[FormPart]) -> list[Sequence[Turn]]:
        """The questions of a form: every file, and every field "text".

        Raises:
            ApiError: there is none, too many, or one cannot be read.
        """
        found = [
            self.typed(part.text, part.name)
            if part.filename is None
            else self.file(part.content, part.filename or part.name)
            for part in given
            if part.filename is not None or part.name == TEXT
        ]
        if not 1 <= len(found) <= limits.ROWS:
            message = f"file: give 1 to {limits.ROWS} files or fields 'text'"
            raise ApiError(400, message, param="file", code="invalid_value")
        return found


def told(answer: Answer, suffix: str, content: Callable[[Turn], bytes]) -> dict[str, Any]:
    """An answer as JSON: ``said`` for people, its parts by their fields, and what else is known."""
    turn = answer.turn
    parts = [
        {"type": _TOLD[type(part)], **dataclasses.asdict(part)}
        for part in turn.parts
        if type(part) in _TOLD
    ]
    made: dict[str, Any] = {"said": turn.said, "parts": parts, **plain(answer.details)}
    if suffix:
        encoded = base64.b64encode(content(turn)).decode()
        made["file"] = {"type": TYPES[suffix], "b64": encoded}
        made["said"] = ""
    return made


def plain(value: Any) -> Any:
    """Numbers of arrays and tensors as lists, so that they can be JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
