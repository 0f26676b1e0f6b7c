"""Find every kind at once and put marks in its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelwright.data.pii import numbers, words
from modelwright.data.pii.names import Names
from modelwright.data.pii.numbers import Span

KINDS = ("email", "phone", "ip", "card", "iban", "ssn", "cn_id", "vin", "secret", "name")
USUAL = tuple(k for k in KINDS if k not in ("vin", "name"))
ROUNDS = 8  # a mark may free a neighbour for a find; more rounds than this has not been seen

# Characters with a plain twin that a telephone or an address may be written in: full-width forms,
# no-break spaces, hyphens and dashes. One for one, so that positions stay.
_WIDE = "\uff0b\uff10-\uff19\uff20-\uff3a\uff41-\uff5a"
_LOOSE = "\xa0\u202f\u2007\u2010-\u2014\u2212\uff08\uff09\uff0d\uff0e\uff3f"
_PLAIN = {0xFF01 + i: 0x21 + i for i in range(94)}
_PLAIN |= {0xA0: 0x20, 0x202F: 0x20, 0x2007: 0x20, 0x2212: 0x2D}
_PLAIN |= dict.fromkeys(range(0x2010, 0x2015), 0x2D)
# Begins with one set of characters, which is what makes the search fast.
_ODD = re.compile(f"[0-9{_WIDE}](?:(?<=[{_WIDE}])|[{_LOOSE}])")
# Every find but a name holds one of these characters, or is a key of letters alone.
_SIGNS = re.compile("[0-9\uff10-\uff19@\uff20=:\uff1a_\\-\u5bc6\u53e3]")
_LETTERS = ("AKIA", "ASIA", "LTAI", "AKID", "eyJ", "AIza")
_FOLD = re.compile(f"[{_WIDE}{_LOOSE}]")

Tag = Callable[[str, str], str]  # (kind, value) -> what is written in its place


@dataclass(frozen=True)
class Finder:
    """What to look for.

    Attributes:
        kinds: some of ``KINDS``.
        private: find private, loopback and reserved IP addresses too.
        names: names of people to find; a kind "name" finds nothing without them.
    """

    kinds: frozenset[str]
    private: bool = False
    names: Names | None = None

    def spans(self, text: str) -> list[Span]:
        """(start, end, kind) of all that is found, in order, without overlaps."""
        if not self.names and not _SIGNS.search(text) and not any(k in text for k in _LETTERS):
            return []
        plain = text if text.isascii() or not _ODD.search(text) else _FOLD.sub(_plain, text)
        found = [*words.spans(plain, self.kinds, private=self.private)]
        found += numbers.spans(plain, self.kinds, private=self.private)
        if self.names and "name" in self.kinds:
            found += ((*span, "name") for span in self.names.spans(text))
        return _apart(found) if len(found) > 1 else found

    def mask(self, text: str, tag: Tag) -> tuple[str, dict[str, int]]:
        """The text with every find replaced, and how many of each kind there were.

        What comes out holds nothing that this finder finds, so masking it again changes nothing:
        it is searched again until nothing is found, because a mark ends words that did not end.
        """
        counts: dict[str, int] = {}
        for _ in range(ROUNDS):
            spans = self.spans(text)
            if not spans:
                break
            pieces, at = [], 0
            for start, end, kind in spans:
                pieces += [text[at:start], tag(kind, text[start:end])]
                counts[kind] = counts.get(kind, 0) + 1
                at = end
            text = "".join([*pieces, text[at:]])
        return text, counts


def _apart(found: Iterable[Span]) -> list[Span]:
    """Spans without overlaps: of two that overlap the earlier, then the longer, stays whole.

    The rest of the later one is covered too, so that no half of a value is left.
    """
    chosen: list[Span] = []
    for start, end, kind in sorted(found, key=lambda s: (s[0], -s[1])):
        if chosen and start < chosen[-1][1]:
            before, until, first = chosen[-1]
            chosen[-1] = (before, max(until, end), first)
        else:
            chosen.append((start, end, kind))
    return chosen


def _plain(match: re.Match[str]) -> str:
    return chr(_PLAIN[ord(match[0])])


def fixed(kind: str, value: str) -> str:
    """The same mark for every value of a kind: [EMAIL]."""
    del value
    return f"[{kind.upper()}]"


def numbered(text: str) -> Tag:
    """Marks that keep who is who within one text: the first e-mail address is [EMAIL_1]."""
    known: dict[tuple[str, str], str] = {}
    last: dict[str, int] = {}

    def tag(kind: str, value: str) -> str:
        key = (kind, _same(kind, value))
        while key not in known:
            last[kind] = last.get(kind, 0) + 1
            mark = f"[{kind.upper()}_{last[kind]}]"
            if mark not in text:  # the text may have been masked before, in part
                known[key] = mark
        return known[key]

    return tag


def keyed(key: bytes) -> Tag:
    """Marks that keep who is who in all texts, for those who hold the key: [EMAIL_kdbmaeoi].

    BLAKE2b keyed with ``key`` (at most 64 bytes), 40 bits, spelled with the letters a to p, in
    which nothing is found again.
    """

    def tag(kind: str, value: str) -> str:
        said = f"{kind}:{_same(kind, value)}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(said, digest_size=5, key=key).hexdigest()
        letters = "".join("abcdefghijklmnop"[int(c, 16)] for c in digest)
        return f"[{kind.upper()}_{letters}]"

    return tag


def _same(kind: str, value: str) -> str:
    """What two spellings of one value share."""
    plain = value.translate(_PLAIN)
    if kind == "email":
        return plain.lower()
    if kind in ("secret", "ip", "name"):
        return plain
    return "".join(c for c in plain if c.isalnum()).upper()


def chosen_kinds(names: Sequence[str]) -> frozenset[str] | None:
    """The kinds of a list of names, of which "all" means the usual ones; None if one is unknown."""
    kinds = frozenset(k for n in names for k in (USUAL if n == "all" else (n,)))
    return kinds if kinds <= set(KINDS) else None
