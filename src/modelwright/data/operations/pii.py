"""Mask personal data and secrets, English and Chinese: marks in their place, counts beside.

What is found is never written anywhere: attributes and reports hold counts by kind. Out of
scope: postal addresses, names without a list, dates of birth, addresses spelled out ("me at x
dot org"), and whatever needs the meaning of a sentence. Recall and precision are measured by
``benchmarks/data/pii.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.operations.operation import Step, WorkRow
from modelwright.data.pii.mask import (
    KINDS,
    Finder,
    Tag,
    chosen_kinds,
    fixed,
    keyed,
    numbered,
)
from modelwright.data.pii.names import Names
from modelwright.errors import ModelwrightError, did_you_mean

STYLES = ("fixed", "numbered", "keyed")


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``pii``.

    Attributes:
        mask: kinds that are replaced: email, phone, ip, card, iban, ssn (US), cn_id (resident
            id of China), vin, secret, name; "all" means all but vin and name.
        count: further kinds that are counted and left where they are.
        style: "fixed" writes [EMAIL]; "numbered" [EMAIL_1], the same number for the same value
            within a row; "keyed" [EMAIL_kdbmaeoi], the same for the same value everywhere, which
            only the holder of the key can make.
        key: the file with the key (1 to 64 bytes used) of the style "keyed".
        names: a file with a name of a person a line, for the kind "name".
        private: take private, loopback and reserved IP addresses too.
        most: rows with more finds than this leave; 0: none does.
        meta: mask the strings in the row's ``meta`` as well.
    """

    mask: tuple[str, ...] = ("all",)
    count: tuple[str, ...] = ()
    style: str = "fixed"
    key: str = ""
    names: str = ""
    private: bool = False
    most: int = 0
    meta: bool = True

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ModelwrightError: an unknown kind or style, or a file that is needed and not named.
        """
        for name in (*self.mask, *self.count):
            if name not in (*KINDS, "all"):
                hint = did_you_mean(name, KINDS)
                raise ModelwrightError(
                    f"pii: no kind {name!r}{hint}; known: {', '.join(KINDS)} and all"
                )
        if self.style not in STYLES:
            raise ModelwrightError(f"pii: no style {self.style!r}; known: {', '.join(STYLES)}")
        if self.style == "keyed" and not self.key:
            raise ModelwrightError("pii: style keyed needs key: FILE, a file with a secret key")
        if "name" in (*self.mask, *self.count) and not self.names:
            raise ModelwrightError("pii: the kind name needs names: FILE, a name a line")

    def assets(self) -> dict[str, str]:
        """Hashes of the list of names and of the key, the latter keyed with itself."""
        found = {}
        if self.names:
            found[self.names] = hashlib.blake2b(_read(self.names), digest_size=16).hexdigest()
        if self.key:
            key = _read(self.key).strip()[:64]
            found[self.key] = hashlib.blake2b(b"pii", digest_size=16, key=key).hexdigest()
        return found

    def begin(self) -> Step:
        """The function for every row."""
        names = None
        if self.names:
            names = Names.of(_read(self.names).decode("utf-8-sig", errors="replace").splitlines())
        masked = chosen_kinds(self.mask) or frozenset()
        counted = (chosen_kinds(self.count) or frozenset()) - masked
        finder = Finder(masked, self.private, names)
        counter = Finder(counted, self.private, names)
        tags = self._tags()

        def step(row: WorkRow) -> str | None:
            text = row.get("text") or ""
            tag = tags(text)
            clean, counts = finder.mask(text, tag)
            if counts:
                row["text"] = clean
            if self.meta and row.get("meta"):
                row["meta"] = _inside(row["meta"], finder, tag, counts)
            if counted:
                for _, _, kind in counter.spans(clean):
                    counts[kind] = counts.get(kind, 0) + 1
            attributes = row["attributes"]
            for kind, count in counts.items():
                attributes[f"pii.{kind}"] = count
            total = sum(counts.values())
            if total:  # of most rows nothing is written, not even a zero
                attributes["pii.total"] = total
            return "too much personal data" if 0 < self.most < total else None

        return step

    def _tags(self) -> Callable[[str], Tag]:
        """A text -> the function that makes its marks."""
        if self.style == "numbered":
            return numbered
        tag = keyed(_read(self.key).strip()[:64]) if self.style == "keyed" else fixed
        return lambda _: tag


def _inside(value: Any, finder: Finder, tag: Tag, counts: dict[str, int]) -> Any:
    """JSON with the strings in it masked; keys stay."""
    if isinstance(value, str):
        clean, found = finder.mask(value, tag)
        for kind, count in found.items():
            counts[kind] = counts.get(kind, 0) + count
        return clean
    if isinstance(value, dict):
        return {k: _inside(v, finder, tag, counts) for k, v in value.items()}
    if isinstance(value, list):
        return [_inside(v, finder, tag, counts) for v in value]
    return value


def _read(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelwrightError(f"pii: {path} cannot be read ({error.strerror})") from error
    if not content.strip():
        raise ModelwrightError(f"pii: {path} is empty; it holds a key or a name a line")
    return content
