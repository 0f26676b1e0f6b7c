"""Names of people from a list: words that begin in upper case, or Chinese characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_WORDS = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
LONGEST = 4  # words, or Chinese characters


@dataclass(frozen=True)
class Names:
    """A list of names, looked up exactly; case counts, so that "may" is not May.

    Attributes:
        spelled: names of alphabetic scripts, words joined by one blank.
        written: Chinese names by their first character.
    """

    spelled: frozenset[str]
    written: dict[str, frozenset[str]]

    @staticmethod
    def of(lines: Iterable[str]) -> Names:
        """From lines of one name each; empty lines and lines that begin with "#" are left out."""
        names = {" ".join(line.split()) for line in lines if not line.startswith("#")} - {""}
        chinese = {n for n in names if "\u3400" <= n[0] <= "\u9fff"}
        first: dict[str, set[str]] = {}
        for name in chinese:
            first.setdefault(name[0], set()).add(name)
        return Names(frozenset(names - chinese), {c: frozenset(n) for c, n in first.items()})

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of the names found, the longest at each place, in no overlap of a kind."""
        if self.spelled:
            yield from self._spelled(text)
        if self.written and not text.isascii():
            yield from self._written(text)

    def _spelled(self, text: str) -> Iterator[tuple[int, int]]:
        words = [m.span() for m in _WORDS.finditer(text)]
        at = 0
        while at < len(words):
            start = words[at][0]
            for last in range(min(at + LONGEST, len(words)) - 1, at - 1, -1):
                end = words[last][1]
                if text[start].isupper() and " ".join(text[start:end].split()) in self.spelled:
                    yield start, end
                    at = last
                    break
            at += 1

    def _written(self, text: str) -> Iterator[tuple[int, int]]:
        at = 0
        while at < len(text):
            names = self.written.get(text[at], frozenset())
            length = next((n for n in range(LONGEST, 1, -1) if text[at : at + n] in names), 0)
            if length:
                yield at, at + length
            at += max(1, length)
