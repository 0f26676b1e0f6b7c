"""Speech: one recording and what is said in it.

The recording is stored as samples, the transcript as the numbers of its characters or words; what
a model reads of the samples is made for each batch (``data/hearing.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from safetensors import numpy as safetensors
from torch import Tensor

from modelwright.data import word_times
from modelwright.data.hearing import Ear, Front, seconds_of
from modelwright.data.ngram import BYTES, NGram
from modelwright.data.prefix_beams import Prefix, Search
from modelwright.data.read_matter import spelled_sentences
from modelwright.data.spelling import Pieces, Spelling, Units
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Answer,
    Array,
    Columns,
    Encoded,
    Example,
    Ragged,
    Text,
    Turn,
    ragged_column,
    text_turn,
)

LONGEST = 30.0  # seconds


class Codec:
    """How recordings are heard and transcripts are spelled.

    ``longest`` is in seconds: longer rows are not learned from, and longer questions are answered
    piece by piece.
    """

    views: ClassVar[tuple[str, tuple[str, ...]]] = ("samples", ("sound", "frames"))
    ragged: tuple[str, ...] = ("samples", "letters")
    targets: ClassVar[tuple[str, ...]] = ("letters", "counts")  # of ``tensors``
    times: ClassVar[bool] = True  # whether ``timed`` says when words are said

    def __init__(
        self,
        ear: Ear,
        spelling: Spelling | Pieces,
        *,
        longest: float = LONGEST,
        search: Search | None = None,
        language: NGram | None = None,
    ) -> None:
        self.ear, self.spelling, self.longest = ear, spelling, longest
        self.search, self.language = search, language
        self.settings = ear.settings
        self.blank, self.vocabulary = spelling.blank, spelling.vocabulary
        self.features = self.bands = ear.settings.bins
        self.rate, self.mean_length = ear.settings.rate, ear.mean_length
        if ear.reads == "frames":  # what ``tensors`` does with recordings, for exported graphs
            self.front: Callable[[], Front] = lambda: ear.front

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        rate: int = 16_000,
        bands: int = 80,
        highest: float | None = None,
        centred: bool = False,
        units: Units = "characters",
        longest: float = LONGEST,
        beams: int = 1,
        language_weight: float = 0.0,
        language_order: int = 5,
        language_texts: str = "",
        letter_bonus: float = 0.0,
    ) -> Codec:
        """Learn the alphabet and the scale of the frames from the ``examples`` of train.

        Args:
            examples: each with one recording and a text to learn.
            rate: samples a second to which every recording is brought.
            bands: mel bands of a frame.
            highest: upper edge of the last band in hertz; left out: half the rate.
            centred: recordings are brought to one loudness, and each band is less its mean over the
                recording, which takes away what microphone and room add: for strangers' voices.
            units: "characters", or "words" of a small closed vocabulary.
            longest: seconds of a recording; rows of longer ones are dropped.
            beams: prefixes kept when a transcript is looked for; 1: the likeliest path.
            language_weight: of the logarithm of an n-gram model of the transcripts of train.
            language_order: of that model, in units.
            language_texts: a data set or path of texts that the model is of as well, up to 8
                million characters of it; what is said must not be in there.
            letter_bonus: added for every unit, which a language model would rather leave out.
        """
        if not 0.1 <= longest <= 600:
            raise ModelwrightError(f"codec.longest: {longest:g} s is not in 0.1..600")
        kept = [e for e in examples if seconds_of(e) <= longest]
        if not kept:
            raise ModelwrightError(
                f"codec.longest: every recording of train is longer than {longest:g} s; raise it"
            )
        return cls.around(
            Ear.fit(kept, rate=rate, bands=bands, highest=highest, centred=centred),
            Spelling.of(map(said, kept), units),
            kept,
            longest=longest,
            beams=beams,
            language_weight=language_weight,
            language_order=language_order,
            language_texts=language_texts,
            letter_bonus=letter_bonus,
        )

    @classmethod
    def around(
        cls,
        ear: Ear,
        spelling: Spelling,
        examples: Iterable[Example],
        *,
        longest: float = LONGEST,
        beams: int = 1,
        language_weight: float = 0.0,
        language_order: int = 5,
        language_texts: str = "",
        letter_bonus: float = 0.0,
    ) -> Codec:
        """The codec of a hearing and an alphabet; the options are those of ``fit``.

        The language model is of those transcripts of the ``examples`` that the alphabet can spell.
        """
        if beams < 1 or (beams == 1 and (language_weight or letter_bonus)):
            raise ModelwrightError(
                f"codec.beams: {beams}; a language model or a bonus needs 2 or more, such as 16"
            )
        if language_texts and (not language_weight or spelling.units != "characters"):
            raise ModelwrightError(
                "codec.language_texts: these are for a language model of characters; set"
                " codec.language_weight, such as 0.4, or leave them out"
            )
        search = language = None
        if beams > 1:
            search = Search(beams, spelling.blank, language_weight, letter_bonus)
        if language_weight:
            if spelling.vocabulary > BYTES:
                raise ModelwrightError(
                    f"codec.language_weight: {spelling.vocabulary} units are more than {BYTES};"
                    " leave it out"
                )
            texts = (text for e in examples if not spelling.problem(text := said(e)))
            counted = [bytes(spelling.spelled(text)) for text in texts]
            if language_texts:
                counted += spelled_sentences(language_texts, spelling)
            language = NGram(language_order).fit(counted)
        return cls(ear, spelling, longest=longest, search=search, language=language)

    def problem(self, example: Example) -> str:
        """Why an example cannot be learned from, or an empty string."""
        if seconds_of(example) > self.longest:
            return f"longer than codec.longest, {self.longest:g} s"
        return self.spelling.problem(said(example))

    def encode(self, example: Example) -> Encoded:
        """``samples`` (n,) int16 and ``letters`` (m,) int32, none of a question.

        Raises:
            ModelwrightError: no recording, or a character that train has not.
        """
        letters = self.spelling.spelled(said(example))
        return {"samples": self.ear.heard(example), "letters": np.array(letters, dtype=np.int32)}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its recording at the codec's rate."""
        given = Turn("user", (self.ear.sound(encoded["samples"]),))
        if not len(encoded["letters"]):
            return Example((given,))
        text = self.spelling.read(np.asarray(encoded["letters"]).tolist())
        return Example((given, text_turn("assistant", text, learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """What the model reads, ``letters`` one after another and ``counts`` (B,) of them."""
        letters = ragged_column(columns, "letters")
        frames = columns.get("frames")
        return {
            **self.ear.tensors(
                ragged_column(columns, "samples"), frames if isinstance(frames, Ragged) else None
            ),
            "letters": torch.from_numpy(np.array(letters.values, dtype=np.int64)),
            "counts": torch.from_numpy(np.array(letters.lengths)),
        }

    def viewed(self, column: Ragged) -> Ragged:
        """The frames of stored recordings, for transforms of frames."""
        return self.ear.viewed(column)

    def decode(self, outputs: Tensor) -> list[Turn]:
        """The text of each row.

        ``outputs`` are log-probabilities (B, T, vocabulary) of every frame, of which the likeliest
        path is taken: repetitions once, then without blanks (Graves et al. 2006, best path); or
        the best prefix, where the codec has ``beams``. Of a decoder they are whole numbers (B, n),
        written up to the end.
        """
        if self.search is not None and outputs.dtype.is_floating_point:
            found = [self._searched(row, self.search) for row in outputs.cpu().numpy()]
            return [text_turn("assistant", self.spelling.read(letters)) for letters in found]
        best = outputs.argmax(-1) if outputs.dtype.is_floating_point else outputs
        rows: list[Array] = list(best.cpu().numpy())
        if outputs.dtype.is_floating_point:
            rows = [row[np.diff(row, prepend=-1) != 0] for row in rows]
        return [text_turn("assistant", self.spelling.read(row.tolist())) for row in rows]

    def timed(self, outputs: Tensor, seconds: float) -> Answer:
        """What ``decode`` reads of one recording, with the times of its words and segments.

        Args:
            outputs: log-probabilities (1, T, vocabulary), without padding.
            seconds: how long the recording is.

        Returns:
            Its ``details`` are those of ``word_times.details``.
        """
        assert isinstance(self.spelling, Spelling)  # noqa: S101 - letters frame by frame
        scores = outputs[0].float().cpu().numpy()
        if self.search is None:
            letters, frames = word_times.path_frames(scores.argmax(-1), self.blank)
        else:
            letters = self._searched(scores, self.search)
            frames = word_times.letter_frames(scores, letters, self.blank)
        found = word_times.details(scores, letters, frames, self.spelling, seconds)
        return Answer(text_turn("assistant", self.spelling.read(letters)), found)

    def _searched(self, scores: Array, search: Search) -> list[int]:
        """The letters of the best prefix for log-probabilities (T, vocabulary)."""
        return search.best(scores, self._following)

    def _following(self, prefix: Prefix) -> Array:
        """Log-probabilities (vocabulary,) of the next unit by the language model."""
        if self.language is None:
            return np.zeros(self.vocabulary)
        shares = self.language.distribution(bytes(prefix))[: self.vocabulary]
        return np.asarray(np.log(shares / shares.sum()))

    def save(self) -> dict[str, bytes]:
        """``speech.json`` and the files of the hearing."""
        facts = {
            "spelling": self.spelling.saved()[0],
            "longest": self.longest,
            "search": None if self.search is None else asdict(self.search),
            "language": None if self.language is None else self.language.order,
        }
        files = {"speech.json": json.dumps(facts, sort_keys=True).encode(), **self.ear.save()}
        if self.language is not None and self.language.counted is not None:
            grams, counts = self.language.counted
            files["language.safetensors"] = safetensors.save({"grams": grams, "counts": counts})
        return files

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["speech.json"])
        search = None if facts["search"] is None else Search(**facts["search"])
        language = None
        if facts["language"] is not None:
            counted = safetensors.load(files["language.safetensors"])
            language = NGram(facts["language"]).restored(counted["grams"], counted["counts"])
        return cls(
            Ear.load(files),
            Spelling.restored(facts["spelling"], files),
            longest=facts["longest"],
            search=search,
            language=language,
        )


def said(example: Example) -> str:
    """The text to learn; empty of a question."""
    parts = (p for t in example.turns if t.learn for p in t.parts if isinstance(p, Text))
    return "".join(p.text for p in parts)
