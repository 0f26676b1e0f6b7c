"""Recordings of any length written down by a trained recogniser, as text or with times.

A recording longer than the codec's ``longest`` is cut where it is quiet, as `ask` and the server
cut it (``data.hearing``). Each piece is heard alone and no sound belongs to two, so nothing has to
be reconciled where they meet: texts are put one behind another, and times move by where a piece
begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modelwright import extensions
from modelwright.data import subtitles
from modelwright.data.hearing import one_by_one
from modelwright.data.media_types import SOUNDS, UNREAD_SOUNDS
from modelwright.data.scripts import apart
from modelwright.data.tree import names_of
from modelwright.errors import ModelwrightError
from modelwright.pipeline.answering import Answerer, answerer_of
from modelwright.pipeline.fitted import Fitted
from modelwright.tasks.questions_of_sound import of_file
from modelwright.tasks.speech_recognition import SpeechRecognition
from modelwright.types import Answer

FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}  # the ends of files
SUBTITLES = ("srt", "vtt")

Heard = Callable[[float, float], None]  # told the seconds heard, and of how many


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording of so many ``seconds``; ``words`` and ``segments`` with times.

    Both are None of a model that does not say when words are said.
    """

    place: str
    text: str
    seconds: float
    words: Sequence[Mapping[str, Any]] | None = None
    segments: Sequence[Mapping[str, Any]] | None = None

    def written(self, form: str, *, by_word: bool = False) -> str:
        """The content of a file of one of the FORMATS; subtitles by segment, or by word."""
        if form == "text":
            return f"{self.text}\n"
        if form == "json":
            return json.dumps(self.facts, ensure_ascii=False) + "\n"
        cues = self.segments or ()
        if by_word:
            cues = [{**word, "text": word["word"]} for word in self.words or ()]
        return subtitles.WAYS[form]({"segments": cues})

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values: ``path``, ``text``, ``duration``, and what has times."""
        found: dict[str, Any] = {"path": self.place, "text": self.text, "duration": self.seconds}
        if self.words is not None and self.segments is not None:
            found["words"] = list(self.words)
            told = ("start", "end", "text", "avg_logprob", "no_speech_prob")
            found["segments"] = [{name: one[name] for name in told} for one in self.segments]
        return found


class Transcriber:
    """A trained recogniser, asked recording by recording."""

    def __init__(self, fitted: Fitted, name: str) -> None:
        """Take a trained model; ``name`` is that of its task in the recipe.

        Raises:
            ModelwrightError: its task is another than to write down what is said.
        """
        if not isinstance(fitted.task, SpeechRecognition):
            raise ModelwrightError(
                f"{fitted.path}: its task is {extensions.short(name)}, which writes down no"
                " recordings; give a run of speech_recognition"
            )
        self.fitted = fitted
        self.answerer: Answerer = answerer_of(fitted)

    def check(self, form: str, *, by_word: bool) -> None:
        """Refuse what this model or this form cannot give.

        Raises:
            ModelwrightError: words are asked of no subtitles, or times of a model without.
        """
        if by_word and form not in SUBTITLES:
            raise ModelwrightError(
                f"--words: is for subtitles, not for {form}; give --format srt or vtt, or leave it"
                " out (json has all words with their times)"
            )
        if form in SUBTITLES and not self.answerer.times:
            raise ModelwrightError(
                f"--format {form}: {self.fitted.path} does not say when words are said, which a"
                " model trained by ctc does; take text or json"
            )

    def transcript(self, path: Path, heard: Heard = lambda *_: None) -> Transcript:
        """What is said in a file; ``heard`` is told after every piece.

        Raises:
            ModelwrightError: it cannot be read, or holds no sound that can be decoded.
        """
        codec = cast(Any, self.fitted.codec)
        turns = of_file(path, str(path), codec.rate)
        text, begin = "", 0.0
        words, segments = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
        whole = turns[0].sound.seconds
        for piece in one_by_one(turns, codec):
            answer, end = self._answer(piece), begin + piece[0].sound.seconds
            said = " ".join(answer.turn.said.split())
            text += f" {said}" if apart(text, said) else said
            words += (_moved(one, begin, end) for one in answer.details.get("words", ()))
            segments += (_moved(one, begin, end) for one in answer.details.get("segments", ()))
            begin = end
            heard(min(begin, whole), whole)
        timed = (words, segments) if self.answerer.times else (None, None)
        return Transcript(str(path), text, whole, *timed)

    def _answer(self, piece: Sequence[Any]) -> Answer:
        params = {"timestamps": True} if self.answerer.times else {}
        (answer,) = self.answerer.detailed([piece], **params)
        return answer


def _moved(found: Mapping[str, Any], begin: float, end: float) -> Mapping[str, Any]:
    """A word or a segment of a piece with its times in the whole recording."""
    times = {name: found[name] + begin for name in ("start", "end")}
    return subtitles.rounded({**found, **times}, end)


def recordings(place: Path) -> Iterator[tuple[Path, Path]]:
    """The files of a path, and what each is called below a folder for what is made of them.

    A folder gives all that end as recordings do, also those of kinds that are not read, so that
    they are named; any other path is a file itself, be it there or not.

    Raises:
        ModelwrightError: a folder holds none.
    """
    if not place.is_dir():
        yield place, Path(place.name)
        return
    names = names_of(place, (*SOUNDS, *UNREAD_SOUNDS))
    if not names:
        raise ModelwrightError(f"{place}: no recording in it; readable: {', '.join(SOUNDS)}")
    for name in names:
        yield place / name, Path(name)


def target(path: Path, ending: str) -> Path:
    """The file that is made of a recording: of its name, another ending."""
    name = path.stem if path.suffix.lower() in SOUNDS else path.name
    return path.with_name(name + ending)


def unread(path: Path) -> str:
    """Why a file of this name is not even opened, or an empty string."""
    kind = path.suffix.lower()
    return f"files in {kind} are not read, convert it to .wav" if kind in UNREAD_SOUNDS else ""
