"""Damaged text put right: wrong decoding, control characters, forms of the same character."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from modelwright.data.clean import repair
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import MachineError

# A byte that begins a character of UTF-8, and one that goes on with it, both read as Latin-1 or
# as Windows-1252: rare in sound text, present in nearly all that was decoded wrongly.
_WRONG = re.compile("[Â-ô][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_LETTERS = {c: c - 0xFEE0 for c in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B))}
_LETTERS |= {c: c - 0xFEE0 for c in range(0xFF41, 0xFF5B)}
_ALL = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_WIDE = re.compile("[\uff01-\uff5e\u3000]")


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``repair``.

    Line ends, control characters, lone surrogates and white space at the ends of lines are put
    in one form (``data/clean.py:repair``) whatever the settings.

    Attributes:
        form: Unicode's normal form: "NFC", or "NFKC", which also unifies ligatures, full-width
            signs and superscripts and so changes Chinese punctuation and formulas.
        mojibake: undo wrong decoding, such as "donâ€™t", with ftfy, in lines that show signs of
            it; other lines are never given to it.
        full_width: "letters" writes full-width Latin letters and digits as ordinary ones, "all"
            punctuation and the ideographic space too, "keep" nothing.
    """

    form: Literal["NFC", "NFKC"] = "NFC"
    mojibake: bool = True
    full_width: Literal["keep", "letters", "all"] = "letters"

    version: ClassVar[int] = 1

    def assets(self) -> dict[str, str]:
        """The version of Unicode's tables, and of ftfy where it is used."""
        versions = {"unicode": unicodedata.unidata_version}
        if self.mojibake and importlib.util.find_spec("ftfy"):
            versions["ftfy"] = importlib.metadata.version("ftfy")
        return versions

    def begin(self) -> Step:
        """Returns the step.

        Raises:
            MachineError: ftfy is wanted and not installed.
        """
        fix = _fixer() if self.mojibake else None
        widths = {"keep": {}, "letters": _LETTERS, "all": _ALL}[self.full_width]

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            if not text.isascii():
                if fix is not None and _WRONG.search(text):
                    text, lines = _decoded_again(text, fix)
                    row.setdefault("attributes", {})["repair.mojibake_lines"] = lines
                if widths and _WIDE.search(text):
                    text = text.translate(widths)
            row["text"] = text = repair(text, self.form)
            return None if text else "empty"

        return step


def _fixer() -> Callable[[str], str]:
    try:
        import ftfy  # noqa: PLC0415 - an extra
    except ImportError:
        raise MachineError(
            "step repair: ftfy is missing: pip install 'modelwright[data]', or mojibake: false"
        ) from None
    fix: Callable[[str], str] = ftfy.fix_encoding
    return fix


def _decoded_again(text: str, fix: Callable[[str], str]) -> tuple[str, int]:
    """The text with its wrong lines decoded again, and how many of them changed."""
    lines, changed = text.split("\n"), 0
    for i, line in enumerate(lines):
        if _WRONG.search(line):
            lines[i] = fix(line)
            changed += lines[i] != line
    return "\n".join(lines), changed
