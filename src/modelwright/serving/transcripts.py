"""What is asked of a recording's transcript, and the forms in which it is told.

Fields and shapes are those of OpenAI. Times are there where the model gives letters frame by frame
(``data/word_times.py``); what asks another model for them is refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from modelwright.data import subtitles
from modelwright.serving.media import FormPart
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.types import Answer

_LISTS = ("timestamp_granularities", "include", "known_speaker_names", "known_speaker_references",
          "keywords", "languages")  # fmt: skip
_SUBTITLES = ("srt", "vtt")


class TranscriptionRequest(Body):
    """The fields of the form of POST /v1/audio/transcriptions beside its file, all of them text.

    A ``language`` is taken as the client's word for it, and told back; it changes nothing, since
    a model of letters has learned its own. What could only be passed over is refused.
    """

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "prompt": (None, ""),
        "temperature": (None, "", "0", "0.0"),
        "chunking_strategy": (None, "", "auto"),
        **dict.fromkeys(_LISTS[1:], (None, [])),
    }
    model: Annotated[str, Field(max_length=256)]
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt"] = "json"
    language: Annotated[str, Field(pattern=r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$")] = ""
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]], Field(max_length=8, default_factory=list)
    ]
    stream: Literal["true", "false", ""] = ""

    @property
    def streams(self) -> bool:
        """Whether the transcript is told while it is heard."""
        return self.stream == "true"

    @property
    def timed(self) -> bool:
        """Whether times are told, if there are any."""
        return self.response_format in ("verbose_json", *_SUBTITLES)

    def check(self, known: Mapping[str, Any]) -> None:
        """Refuse what this model cannot do; ``known`` are its facts, see ``asking.facts``.

        Raises:
            ApiError: it has no times, or writes another language; fields contradict each other.
        """
        wanted, asked = self.response_format, self.timestamp_granularities
        if asked and wanted != "verbose_json":
            raise _refused("timestamp_granularities", "needs response_format verbose_json")
        if self.streams and self.timed:
            raise _refused("response_format", f"{wanted!r} is told whole; leave stream out")
        if not known.get("times") and (asked or wanted in _SUBTITLES):
            param = "timestamp_granularities" if asked else "response_format"
            why = "this model does not say when words are said; take json, text, or verbose_json"
            raise _refused(param, f"{why} without timestamp_granularities")
        own = str(known.get("language", ""))
        if own and self.language and self.language.partition("-")[0].lower() != own:
            raise _refused("language", f"this model writes down {own!r} alone; leave it out")

    def response(self, answer: Answer, seconds: float, own: str) -> Response:
        """The transcript in the form that is asked for.

        Args:
            answer: with ``words`` and ``segments`` in its details, where times are known.
            seconds: how long the recording is.
            own: the language that the model is known to write, or nothing.
        """
        text, found = answer.turn.said, answer.details
        if self.response_format == "json":
            return JSONResponse({"text": text})
        if self.response_format == "text":
            return PlainTextResponse(text + "\n")
        words = [subtitles.rounded(word, seconds) for word in found.get("words", ())]
        segments = [subtitles.rounded(segment, seconds) for segment in found.get("segments", ())]
        if self.response_format in _SUBTITLES:
            return PlainTextResponse(subtitles.WAYS[self.response_format]({"segments": segments}))
        wanted = self.timestamp_granularities or ["segment"]
        told: dict[str, Any] = {"task": "transcribe", "language": self.language or own}
        told |= {"duration": seconds, "text": text}
        if "word" in wanted:
            told["words"] = words
        if "segment" in wanted:
            told["segments"] = [{"id": i, **_described(s)} for i, s in enumerate(segments)]
        return JSONResponse(told)


def requested(parts: Sequence[FormPart]) -> tuple[TranscriptionRequest, bytes]:
    """The fields of a form, checked, and the content of its file.

    Raises:
        ApiError: one is missing, wrong, or asks for what is not offered.
    """
    fields: dict[str, Any] = {}
    for part in parts:
        name = part.name.partition("[")[0]  # of a list "name[]", of an object "name[field]"
        if part.filename is not None or name == "file":
            continue
        if name in _LISTS:
            fields.setdefault(name, []).append(part.text)
        else:
            fields[name] = part.text
    content = next((part.content for part in parts if part.name == "file"), None)
    if content is None:
        message = "file: is missing"
        raise ApiError(400, message, param="file", code="missing_required_parameter")
    return parse(TranscriptionRequest, json.dumps(fields).encode()), content


def _described(segment: Mapping[str, Any]) -> dict[str, Any]:
    """A segment with the fields that the official shape has of every one.

    Nothing is drawn, so its temperature is 0, and its place among windows is the recording's.
    """
    plain = str(segment["text"]).encode()
    ratio = len(plain) / max(1, len(zlib.compress(plain)))
    return {**segment, "seek": 0, "temperature": 0.0, "compression_ratio": ratio}


def _refused(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code="unsupported_value")
