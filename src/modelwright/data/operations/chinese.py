"""Chinese text in one form: spacing, punctuation, traditional or simplified characters.

No table of simplified forms is shipped: none that we found may be copied here without conditions.
``table`` takes one; the file TSCharacters.txt of the project OpenCC (Apache-2.0) has its form.
Which characters are traditional or simplified only is known without it: from the two character
sets GB 2312 and Big5, which Python's own codecs carry.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SIGNS = "，。！？；：、“”‘’（）《》〈〉「」『』【】…—"
_ANY_HAN = re.compile(f"[{_HAN}]")
_SPACES = re.compile(f"(?<=[{_HAN}{_SIGNS}])[ \\t\u00a0]+(?=[{_HAN}{_SIGNS}])")
_BRACKETS = re.compile(r"\(([^()\n]{1,200})\)")
_STOPS = re.compile(
    f"(?<=[{_HAN}”’）》」』])(?:\\.{{3,6}}|[,;:!?.])(?:(?![\\w.,;:!?/])|(?=[{_HAN}“‘（《「『]))"
)
_FULL = {",": "，", ";": "；", ":": "：", "!": "！", "?": "？", ".": "。"}


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``chinese``; texts without ideographs pass unchanged.

    Attributes:
        spacing: remove spaces and tabs between ideographs and Chinese punctuation, as PDF and
            OCR leave them; the ideographic space and spaces beside Latin letters stay.
        punctuation: "full" writes , . ; : ! ? and round brackets that belong to ideographs in
            their full-width forms; "keep" changes nothing.
        table: a file with a traditional character, white space, and its simplified forms a line,
            of which the first is taken; "" converts nothing. Character by character: words
            that differ, and characters with several simplified forms, are not understood.
        keep: "simplified" or "traditional" lets only rows stay that are written so (after the
            table was used); "both" all.
    """

    spacing: bool = True
    punctuation: Literal["full", "keep"] = "keep"
    table: str = ""
    keep: Literal["both", "simplified", "traditional"] = "both"

    version: ClassVar[int] = 1

    def assets(self) -> dict[str, str]:
        """The hash of the table."""
        if not self.table:
            return {}
        return {"table": hashlib.blake2b(self._content(), digest_size=16).hexdigest()}

    def begin(self) -> Step:
        """Returns the step.

        Raises:
            ModelwrightError: the table cannot be read.
        """
        simplified = self._simplified()

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str) or text.isascii() or not _ANY_HAN.search(text):
                return None
            if simplified:
                text = text.translate(simplified)
            if self.punctuation == "full":
                text = full_punctuation(text)
            if self.spacing:
                text = _SPACES.sub("", text)
            row["text"] = text
            share = traditional_share(text)
            row.setdefault("attributes", {})["chinese.traditional"] = round(share, 4)
            if self.keep == "simplified" and share > 0.5:
                return "traditional characters"
            if self.keep == "traditional" and share < 0.5:
                return "simplified characters"
            return None

        return step

    def _content(self) -> bytes:
        try:
            return Path(self.table).read_bytes()
        except OSError as error:
            raise ModelwrightError(
                f"step chinese: table: {self.table}: {error.strerror or error}"
            ) from None

    def _simplified(self) -> dict[int, str]:
        if not self.table:
            return {}
        found = {}
        try:
            lines = self._content().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ModelwrightError(f"step chinese: table: {self.table}: is not UTF-8") from None
        for number, line in enumerate(lines, 1):
            parts = line.split()
            if not parts or line.startswith("#"):
                continue
            if len(parts) < 2 or len(parts[0]) != 1 or len(parts[1]) != 1:
                raise ModelwrightError(
                    f"step chinese: table: {self.table}, line {number}: "
                    "not a character and its simplified form"
                )
            found[ord(parts[0])] = parts[1]
        return found


def full_punctuation(text: str) -> str:
    """Punctuation that belongs to ideographs in its full-width form."""
    text = _BRACKETS.sub(lambda m: f"（{m[1]}）" if _ANY_HAN.search(m[1]) else m[0], text)
    return _STOPS.sub(lambda m: _FULL.get(m[0], "……"), text)


@functools.cache
def _only() -> tuple[frozenset[str], frozenset[str]]:
    """(traditional, simplified) characters: those of one character set and not of the other."""
    sets = []
    for codec in ("big5", "gb2312"):
        content = (chr(c).encode(codec, "ignore").decode(codec) for c in range(0x4E00, 0xA000))
        sets.append(frozenset("".join(content)))
    big5, gb2312 = sets
    return big5 - gb2312, gb2312 - big5


def traditional_share(text: str) -> float:
    """Characters that are only traditional, of those that are only one of the two; 0.5: none."""
    traditional, simplified = _only()
    old = sum(map(traditional.__contains__, text))
    new = sum(map(simplified.__contains__, text))
    return old / (old + new) if old + new else 0.5
