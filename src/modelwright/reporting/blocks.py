"""What the page is made of - tables and figures - and how numbers are written in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from modelwright.reporting.record import number, text

LONGEST = 4000  # characters of one piece of text that are shown


@dataclass(frozen=True)
class Table:
    """A table with a caption. ``align`` has a letter a column: left, right, code."""

    caption: str
    head: tuple[str, ...]
    align: str
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Figure:
    """A drawn chart with its caption and, where needed, a note about what is not drawn."""

    caption: str
    svg: Markup
    note: str = ""


def figures(value: float, digits: int = 3) -> str:
    """``value`` to so many significant digits, without an exponent where one can read it."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 15:
        return f"{value:,.{max(0, digits - 1 - size)}f}"
    return f"{value:.{digits - 1}e}"


def scaled(value: Any, unit: str = "") -> str:
    """A count or a rate with a decimal prefix: 5500000 -> "5.50 M"; nothing for no number."""
    amount = number(value)
    if amount is None:
        return "-"
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(amount) >= 10**power and (unit or power > 3 or abs(amount) >= 1e5):
            return f"{figures(amount / 10**power)} {prefix}{unit}"
    shown = f"{amount:,.0f}" if amount == int(amount) else figures(amount)
    return f"{shown} {unit}".rstrip()


def whole(value: Any) -> str:
    """A count in full: 123456 -> "123,456"."""
    amount = number(value)
    return "-" if amount is None else f"{amount:,.0f}"


def percent(part: float | None, total: float | None) -> str:
    """``part`` of ``total`` in percent."""
    return f"{100 * part / total:.1f} %" if part is not None and total else "-"


def duration(value: Any) -> str:
    """Seconds as people say them: "4.2 s", "41 s", "6 min 12 s", "2 h 03 min"."""
    seconds = number(value)
    if seconds is None:
        return "-"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def aligned(values: Sequence[float | None]) -> list[str]:
    """Values of one measure with the same number of decimals, about four digits in the largest."""
    finite = [v for v in values if v is not None]
    if all(v == int(v) for v in finite):
        decimals = 0
    else:
        size = math.floor(math.log10(max(abs(v) for v in finite)))
        decimals = min(max(0, 3 - size - (size < 0)), 9)
    return ["not finite" if v is None else f"{v:,.{decimals}f}" for v in values]


def shorten(value: Any, longest: int = LONGEST) -> str:
    """Text cut after ``longest`` characters, saying how much is missing."""
    full = text(value)
    if len(full) <= longest:
        return full
    return f"{full[:longest]} [... {len(full) - longest:,} more characters]"


def flatten(value: dict[str, Any], depth: int = 8) -> dict[str, Any]:
    """Nested mappings as dotted keys, so deep: {"train": {"steps": 5}} -> {"train.steps": 5}."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if depth and isinstance(inner, dict) and inner:
            flat |= {f"{key}.{below}": v for below, v in flatten(inner, depth - 1).items()}
        else:
            flat[key] = inner
    return flat
