"""What stands beside an answer in the page: recordings to be heard, and words that differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelwright.data.scripts import apart
from modelwright.reporting.blocks import shorten
from modelwright.reporting.drawings import data_uri
from modelwright.reporting.record import Record, mapping, text

PLAYERS = 24  # recordings of one list of answers that go into the page
BYTES = 12 << 20  # of these in all, as they stand in the page
WORDS = 600  # of an answer that are compared in the page


@dataclass(frozen=True)
class Compared:
    """A word of a reference beside that of an answer; an empty one is not there."""

    meant: str
    said: str
    apart: bool = True  # from the next one, by a space

    @property
    def kind(self) -> str:
        """What became of the word: "right", "left out", "put in" or "mistaken"."""
        if self.meant == self.said:
            return "right"
        return "mistaken" if self.meant and self.said else "left out" if self.meant else "put in"


@dataclass(frozen=True)
class Player:
    """A recording: whose, its data URI, and where it lies if the page has no room for it."""

    who: str
    uri: str
    place: str


class Players:
    """The recordings of a list of answers, until there are too many or they are too large."""

    def __init__(self, record: Record) -> None:
        self.record, self.left, self.room = record, PLAYERS, BYTES

    def of(self, sounds: Any) -> list[Player]:
        """Those that an answer names, ``sounds`` of files of samples/ by what they are.

        One that cannot be read is left out, and a problem of the record.
        """
        found = []
        for who, name in mapping(sounds).items():
            full = not (self.left > 0 and self.room > 0)
            uri = "" if full else data_uri(self.record, text(name), "wav")
            if len(uri) > self.room:
                full, uri = True, ""
            if uri or full:
                found.append(Player(shorten(who, 60), uri, f"samples/{shorten(name, 100)}"))
            self.left -= bool(uri)
            self.room -= len(uri)
        return found


def compared(pairs: Any) -> list[Compared]:
    """The pairs (meant, said) of an answer; what is no such pair is left out.

    Nothing where all is right.
    """
    listed = pairs if isinstance(pairs, list) else []
    words = [
        (shorten(one[0], 100), shorten(one[1], 100))
        for one in listed[:WORDS]
        if isinstance(one, list) and len(one) == 2 and (one[0] or one[1])
    ]
    found = [
        Compared(*pair, apart(pair[1] or pair[0], after[0] or after[1]))
        for pair, after in zip(words, [*words[1:], ("", "")], strict=False)
    ]
    return found if any(pair.kind != "right" for pair in found) else []
