"""Whether an answer is right, as a machine can tell: 1.0 or 0.0, pure functions of two texts."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from modelwright.data import sandbox

_NUMBER = re.compile(r"####\s*\$?(-?[\d,]*\.?\d+)")
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def number(text: str) -> Decimal | None:
    """The number behind the first ``####`` of a text (GSM8K, arXiv:2110.14168); None without."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    try:
        return Decimal(found[1].replace(",", ""))
    except InvalidOperation:
        return None


def same_number(reference: str, answer: str) -> float:
    """1 where both texts have a number behind ``####``, and the same one."""
    meant = number(reference)
    return float(meant is not None and meant == number(answer))


def same_text(reference: str, answer: str) -> float:
    """1 where both texts are the same, however their words are spaced."""
    return float(reference.split() == answer.split())


def same_match(reference: str, answer: str, pattern: re.Pattern[str]) -> float:
    """1 where ``pattern`` is found in both texts and its first group is the same.

    A pattern without a group is compared whole.
    """
    meant, said = pattern.search(reference), pattern.search(answer)
    if meant is None or said is None:
        return 0.0
    group = min(1, pattern.groups)
    return float(meant[group] == said[group])


def program(answer: str) -> str:
    """The Python of an answer: what stands in its first fence, or all of it."""
    fenced = _FENCED.search(answer)
    return fenced[1] if fenced else answer


def passes(tests: str, answer: str, *, seconds: float, megabytes: int) -> float:
    """1 where the program of an answer passes tests, run contained: ``data/sandbox.py``."""
    return float(sandbox.run(program(answer), tests, seconds=seconds, megabytes=megabytes).passed)
