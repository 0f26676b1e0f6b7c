"""Transcripts as numbers and back: a number for each character or word, 0 for none of them.

The number 0 is the blank of connectionist temporal classification, and begins and ends what a
decoder writes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from modelwright.data.codecs import published_text
from modelwright.errors import ModelwrightError

Units = Literal["characters", "words"]
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")  # as Whisper's tokenizer writes it
LARGEST = 20_000  # distinct characters or words


@dataclass(frozen=True)
class Spelling:
    """What stands for each number.

    Attributes:
        tokens: by number; that of ``blank`` and those in angle brackets are no text.
        units: whether a token is a character or a word.
        blank: the number that stands for nothing.
        space: the token of a space between words.
        fold: "upper" or "lower": how texts are written in these tokens; "" as they are.
    """

    tokens: tuple[str, ...]
    units: Units = "characters"
    blank: int = 0
    space: str = " "
    fold: Literal["", "upper", "lower"] = ""

    @classmethod
    def of(cls, texts: Iterable[str], units: Units) -> Spelling:
        """The characters or words of the texts of the train split, in order.

        Raises:
            ModelwrightError: there are none, or too many.
        """
        found: set[str] = set()
        for text in texts:
            plain = composed(text)
            found |= set(plain.split()) if units == "words" else set(plain)
        if not found or len(found) > LARGEST:
            raise ModelwrightError(
                f"codec.units: {len(found)} distinct {units} in the transcripts of train, 1 to"
                f" {LARGEST} are meant; check the column of the transcripts"
            )
        return cls(("", *sorted(found)), units)

    @property
    def vocabulary(self) -> int:
        """How many numbers there are."""
        return len(self.tokens)

    @property
    def start(self) -> int:
        """What a decoder begins with."""
        return self.blank

    @property
    def end(self) -> int:
        """What a decoder ends with."""
        return self.blank

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands after the start and is not learned: nothing."""
        return ()

    @property
    def numbers(self) -> dict[str, int]:
        """Token -> number, of the tokens that are text."""
        return {t: i for i, t in enumerate(self.tokens) if i != self.blank and not _special(t)}

    def pieces(self, text: str) -> list[str]:
        """The text cut into tokens, known or not."""
        text = composed(text)
        if self.fold:
            text = text.upper() if self.fold == "upper" else text.lower()
        if self.units == "words":
            return text.split()
        return [self.space if c == " " else c for c in text]

    def problem(self, text: str) -> str:
        """Why a transcript cannot be learned, or an empty string."""
        pieces = self.pieces(text)
        if not pieces:
            return "no transcript"
        known = self.numbers
        strange = next((p for p in pieces if p not in known), None)
        if strange is None:
            return ""
        kind = "word" if self.units == "words" else "character"
        return f"transcript has a {kind} that train has not"

    def spelled(self, text: str) -> list[int]:
        """The numbers of a text.

        Raises:
            ModelwrightError: a character or word is not known.
        """
        known, pieces = self.numbers, self.pieces(text)
        for piece in pieces:
            if piece not in known:
                raise ModelwrightError(
                    f"transcript {text[:40]!r}: {piece!r} is not in the train split; add"
                    " recordings with it, or remove this one"
                )
        return [known[piece] for piece in pieces]

    def read(self, numbers: Sequence[int]) -> str:
        """The text of numbers; blanks and what is no text are passed over."""
        known = self.numbers
        said = [t for t in (self.tokens[n] for n in numbers) if t in known]
        if self.units == "words":
            return " ".join(said)
        return "".join(" " if t == self.space else t for t in said)

    def saved(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """As plain values and files."""
        return asdict(self), {}

    @classmethod
    def restored(cls, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> Spelling:  # noqa: ARG003
        """What ``saved`` gave."""
        return cls(**{**facts, "tokens": tuple(facts["tokens"])})


@dataclass(frozen=True)
class Pieces:
    """The tokens of a published tokenizer, as the decoder of a published model writes them.

    Attributes:
        text: the tokenizer.
        start: of a text; ``end``: of it.
        prompt: after the start: a language, a task, whether times are written.
    """

    text: published_text.Codec
    start: int
    end: int
    prompt: tuple[int, ...] = ()

    @property
    def vocabulary(self) -> int:
        """How many numbers there are."""
        return self.text.vocabulary

    @property
    def blank(self) -> int:
        """What stands for nothing: the end."""
        return self.end

    @property
    def language(self) -> str:
        """The code of the language in the prompt, such as "en"; empty where there is none."""
        tokens = (self.text.tokenizer.id_to_token(number) or "" for number in self.prompt)
        found = filter(None, (_LANGUAGE.fullmatch(token) for token in tokens))
        return next((match[1] for match in found), "")

    def problem(self, text: str) -> str:
        """Why a transcript cannot be learned, or an empty string."""
        return "" if composed(text) else "no transcript"

    def spelled(self, text: str) -> list[int]:
        """The prompt and the tokens of a text, which begins with a space, as published; or none."""
        plain = composed(text)
        return [*self.prompt, *self.text.tokens(f" {plain}")] if plain else []

    def read(self, numbers: Sequence[int]) -> str:
        """The text of numbers up to the end, special ones passed over."""
        kept = []
        for number in numbers:
            if number == self.end:
                break
            kept.append(number)
        return composed(self.text.text(kept))

    def saved(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """As plain values and files."""
        facts = {"pieces": True, "start": self.start, "end": self.end, "prompt": self.prompt}
        return facts, self.text.save()

    @classmethod
    def restored(cls, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> Pieces:
        """What ``saved`` gave."""
        text = published_text.Codec.load(files)
        return cls(text, facts["start"], facts["end"], tuple(facts["prompt"]))


def composed(text: str) -> str:
    """The text in composed Unicode, its runs of white space one space each."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _special(token: str) -> bool:
    return len(token) > 2 and token[0] == "<" and token[-1] == ">"
