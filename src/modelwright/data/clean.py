"""Repairing text, and leaving out what a model should not learn from.

Repairs and rules are small pure functions. The rules follow Gopher (Rae et al. 2021,
arXiv:2112.11446, table A1: repetition and words without letters) and C4 (Raffel et al. 2020,
arXiv:1910.10683, section 2.2: too short, machine-made) where these fit; they are widened so that
source code and reference text, not only web prose, pass. All measures work in any script.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelwright.data.waterfall import Dropped, drop

if TYPE_CHECKING:  # types loads torch, which a worker that only cleans need not have
    from modelwright.types import Row

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")  # all but tab, newline
_SURROGATE = re.compile("[\ud800-\udfff]")
_CODE_POINT = re.compile(r"\\x[0-9a-fA-F]{2}|\\[uU][0-9a-fA-F]{4,8}|0[xX][0-9a-fA-F]+|\\[0-7]{3}")
_UNBROKEN = re.compile(r"[A-Za-z0-9+/=_-]+")
_RULER = re.compile(r"([^\w\s])\1{3,}")  # ==== or ----: one sign, however long
_WORDS = re.compile(r"[^\W\d_]+(?:[ _]+[^\W\d_]+)*")
_NUMBERS = re.compile(r"\d[\d ]*")


@dataclass(frozen=True)
class CleanRules:
    r"""Limits of what is kept; a text beyond any of them is dropped. Fractions are 0..1.

    Attributes:
        min_chars: Fewest characters that are not white space.
        min_letters: Least share of letters (of any script, numerals and escape codes left out)
            among the characters that are not white space. Gopher asks for a letter in 80 % of
            words; counted in characters, source code passes and tables of numbers do not.
        max_code_points: Greatest share of characters inside ``\x7f``, ``\u20ac``, ``0x7F``,
            ``\177``: tables of character codes and dumps of bytes. Applies from
            ``min_table_lines`` lines on: a docstring may well show a few bytes.
        max_line_chars: Longest line; prose with a line a paragraph passes.
        max_unbroken_chars: Longest run of letters of base64 (ASCII) without a space between:
            embedded binary data.
        max_duplicate_lines: Greatest share of characters in lines that repeat an earlier line
            (Gopher: 0.20 for prose; the standard library's ``bisect`` reaches 0.30); lines below
            20 characters do not count, for code repeats ``return self`` and ``else:`` honestly.
        max_same_shape: Greatest share of lines that look alike once words and numbers are
            replaced by signs, or that are each one quoted string: tables and data written as
            source. Applies from ``min_table_lines`` lines on.
        min_table_lines: Fewest lines of what is judged to be a table.
    """

    min_chars: int = 20
    min_letters: float = 0.35
    max_code_points: float = 0.15
    max_line_chars: int = 50_000
    max_unbroken_chars: int = 500
    max_duplicate_lines: float = 0.45
    max_same_shape: float = 0.60
    min_table_lines: int = 40


def repair(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """The text in a normal form; applying it twice changes nothing more.

    Line ends become a newline; control characters (NUL and byte order marks among them, tab and
    newline excepted) and lone surrogates go; Unicode is composed (NFC, or NFKC, which also writes
    compatible characters such as ligatures in one way); white space at the ends of lines and
    blank lines around the text go.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    text = unicodedata.normalize(form, _CONTROL.sub("", text))
    text = "\n".join(map(str.rstrip, text.split("\n"))).strip("\n")
    return text + "\n" if text else ""


def letters_share(text: str) -> float:
    """Letters outside escape codes, as a share of what is not white space; a ruler is one sign."""
    text = _RULER.sub(r"\1", text)
    bare = _CODE_POINT.sub("", text)
    size = len("".join(text.split()))
    return sum(map(str.isalpha, bare)) / size if size else 0.0


def code_points_share(text: str) -> float:
    """Characters inside escapes and hexadecimal numbers, as a share of what is not white space."""
    size = len("".join(text.split()))
    return sum(map(len, _CODE_POINT.findall(text))) / size if size else 0.0


def duplicate_lines_share(text: str) -> float:
    """Characters in repeats of an earlier line, as a share of all, both in lines from 20 on."""
    lines = [line.strip() for line in text.split("\n")]
    counts = Counter(line for line in lines if len(line) >= 20)
    total = sum(len(line) * n for line, n in counts.items())
    return sum(len(line) * (n - 1) for line, n in counts.items()) / total if total else 0.0


def same_shape_share(text: str) -> float:
    """Share of the non-blank lines that have the commonest shape with structure in it.

    A shape is a line with runs of words as ``a`` and of digits as ``0``. Sentences and verse
    share shapes too, so only those with three signs that are no sentence punctuation count. A
    line that is one quoted string counts as one shape, whatever it quotes.
    """
    shapes = Counter(_shape(line) for line in map(str.strip, text.split("\n")) if line)
    lines = shapes.total()
    shapes.pop("", None)
    return max(shapes.values(), default=0) / lines if lines else 0.0


def _shape(line: str) -> str:
    if len(line) > 2 and line[0] in "'\"" and line.rstrip(",)")[-1:] == line[0]:
        return "'...'"
    shape = _NUMBERS.sub("0", _WORDS.sub("a", _CODE_POINT.sub("0", line)))
    signs = sum(1 for c in shape if c.isascii() and not c.isalnum() and c not in " \t.,;!?-'")
    return shape if signs >= 3 else ""


def _longest(parts: Iterable[str]) -> int:
    return max(map(len, parts), default=0)


def _code_table(text: str, rules: CleanRules) -> bool:
    if text.count("\n") < rules.min_table_lines:
        return False
    return code_points_share(text) > rules.max_code_points


def _one_shape(text: str, rules: CleanRules) -> bool:
    if text.count("\n") < rules.min_table_lines:
        return False
    return same_shape_share(text) > rules.max_same_shape


RULES: tuple[tuple[str, Callable[[str, CleanRules], bool]], ...] = (  # (reason, does it apply)
    ("empty", lambda t, _: not t.strip()),
    ("too short", lambda t, r: len("".join(t.split())) < r.min_chars),
    ("over-long line", lambda t, r: _longest(t.split("\n")) > r.max_line_chars),
    ("embedded data", lambda t, r: _longest(_UNBROKEN.findall(t)) > r.max_unbroken_chars),
    ("table of character codes", _code_table),
    ("too few letters", lambda t, r: letters_share(t) < r.min_letters),
    ("repeated lines", lambda t, r: duplicate_lines_share(t) > r.max_duplicate_lines),
    ("lines of one shape", _one_shape),
)


def drop_reason(text: str, rules: CleanRules) -> str | None:
    """Why a repaired text should not be learned from, or None if it may be."""
    return next((reason for reason, applies in RULES if applies(text, rules)), None)


def clean_rows(
    rows: Iterable[Row], rules: CleanRules | None = None
) -> tuple[list[Row], list[Dropped]]:
    """Repair the text of every row and drop those beyond the rules.

    Rows without ``text`` pass unchanged. Returns the kept rows, in order, and the dropped.
    """
    rules = rules or CleanRules()
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        if not isinstance(row.get("text"), str):
            kept.append(row)
            continue
        text = repair(row["text"])
        reason = drop_reason(text, rules)
        if reason is None:
            kept.append({**row, "text": text})
        else:
            dropped.append(drop(row, reason))
    return kept, dropped
