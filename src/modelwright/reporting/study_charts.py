"""Charts over many runs as inline SVG: dots with their intervals, and one value against another.

They share the page's style sheet and the box of `charts`; every dot has a ``<title>``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from modelwright.reporting.charts import CHARACTER, HEIGHT, WIDTH, tick_labels, ticks

LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 16.0, 14.0, HEIGHT - 36.0
ROW = 46.0  # height of a strip


@dataclass(frozen=True)
class Strip:
    """The values of one who, its mean, and two intervals around it, the inner one first."""

    label: str
    values: Sequence[float]
    mean: float
    inner: tuple[float, float] | None = None
    outer: tuple[float, float] | None = None
    strong: bool = True


@dataclass(frozen=True)
class Dot:
    """One run: ``x`` is a number or the name of a choice; strong ones are in colour."""

    x: float | str
    y: float
    title: str
    strong: bool = True


def strip_chart(label: str, strips: Sequence[Strip]) -> Markup:
    """Draw a row of dots for each who over one axis, with its mean and intervals.

    Args:
        label: What the chart shows, for those who hear it; the means follow it.
        strips: From top to bottom, each with finite values.

    Returns:
        An ``<svg>`` element, or nothing where there are no strips.
    """
    if not strips:
        return Markup("")
    ends = [v for s in strips for v in (*s.values, s.mean, *(s.inner or ()), *(s.outer or ()))]
    marks = ticks(min(ends), max(ends))
    x = _scale(marks[0], marks[-1], 8, WIDTH - 12)
    height = ROW * len(strips) + 24
    parts = []
    for mark, name in zip(marks, tick_labels(marks), strict=True):
        parts.append(f'<path class="grid" d="M{x(mark):.1f} 0V{height - 18:.1f}"/>')
        parts.append(_words(x(mark), height - 4, name, "tick", "middle"))
    for i, s in enumerate(strips):
        y = i * ROW + 30
        shown = f"{s.label}: mean {s.mean:.4g}"
        parts.append(f"<g><title>{escape(shown)}</title>")
        parts.append(_words(0, y - 14, shown, "name strong" if s.strong else "name"))
        for pair, role in ((s.outer, "raw"), (s.inner, "train")):
            if pair:
                parts.append(f'<path class="{role}" d="M{x(pair[0]):.1f} {y}H{x(pair[1]):.1f}"/>')
        parts.append(f'<path class="train" d="M{x(s.mean):.1f} {y - 7}v14"/></g>')
        parts += [
            f'<circle class="dot" cx="{x(v):.1f}" cy="{y}" r="3.5">'
            f"<title>{escape(f'{s.label}, fold {n}: {v:.4g}')}</title></circle>"
            for n, v in enumerate(s.values, 1)
        ]
    said = "; ".join(f"{s.label} {s.mean:.4g}" for s in strips)
    return _svg(height, f"{label}: {said}", parts)


def scatter(
    label: str,
    dots: Sequence[Dot],
    *,
    x_label: str,
    log: bool = False,
    line: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Draw one value of many runs against another.

    Args:
        label: What the chart shows, for those who hear it.
        dots: With finite values; ``x`` are all numbers or all names.
        x_label: Name of the x axis and its unit.
        log: Use a logarithmic x axis where all x are positive.
        line: Points of a line drawn below the dots, as steps.

    Returns:
        An ``<svg>`` element, or nothing where there are no dots.
    """
    if not dots:
        return Markup("")
    y_marks = ticks(min(d.y for d in dots), max(d.y for d in dots))
    y = _scale(y_marks[0], y_marks[-1], BOTTOM, TOP)
    place, x_marks = _horizontal(dots, log=log)
    parts = []
    for mark, name in zip(y_marks, tick_labels(y_marks), strict=True):
        parts.append(f'<path class="grid" d="M{LEFT} {y(mark):.1f}H{RIGHT}"/>')
        parts.append(_words(LEFT - 6, y(mark) + 4, name, "tick", "end"))
    for at, name in x_marks:
        parts.append(f'<path class="grid" d="M{at:.1f} {BOTTOM}v4"/>')
        parts.append(_words(at, BOTTOM + 16, name, "tick", "middle"))
    parts.append(
        _words(RIGHT, HEIGHT - 4, x_label + (" (log scale)" if log else ""), "tick", "end")
    )
    if line:
        (first_x, first_y), *rest = line
        steps = "".join(f"H{place(px):.1f}V{y(py):.1f}" for px, py in rest)
        path = f"M{place(first_x):.1f} {y(first_y):.1f}{steps}"
        parts.append(f'<path class="train" d="{path}"/>')
    for d in sorted(dots, key=lambda d: d.strong):  # the strong ones on top
        role = "dot" if d.strong else "other"
        spot = f'cx="{place(d.x):.1f}" cy="{y(d.y):.1f}" r="3.5"'
        parts.append(f'<circle class="{role}" {spot}><title>{escape(d.title)}</title></circle>')
    low, high = min(d.y for d in dots), max(d.y for d in dots)
    return _svg(HEIGHT, f"{label}: {len(dots)} runs from {low:.4g} to {high:.4g}", parts)


def _horizontal(
    dots: Sequence[Dot], *, log: bool
) -> tuple[Callable[[float | str], float], list[tuple[float, str]]]:
    """Where an x lies, and the marks of the axis with their names."""
    names = list(dict.fromkeys(str(d.x) for d in dots))
    if any(isinstance(d.x, str) for d in dots):
        gap = (RIGHT - LEFT) / len(names)
        spots = {name: LEFT + gap * (i + 0.5) for i, name in enumerate(sorted(names))}
        fits = max(1, int(gap / CHARACTER) - 1)
        return lambda v: spots[str(v)], [(at, name[:fits]) for name, at in spots.items()]
    values = [float(d.x) for d in dots]
    if log and min(values) > 0:
        first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        last = max(last, first + 1)
        scale = _scale(first, last, LEFT, RIGHT)
        marks = [(scale(e), f"1e{e}") for e in range(first, last + 1)]
        return lambda v: scale(math.log10(float(v))), marks
    round_marks = ticks(min(values), max(values))
    scale = _scale(round_marks[0], round_marks[-1], LEFT, RIGHT)
    named = zip(round_marks, tick_labels(round_marks), strict=True)
    return lambda v: scale(float(v)), [(scale(mark), name) for mark, name in named]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _words(x: float, y: float, content: str, role: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{role}" {place}>{escape(content)}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return Markup("\n".join([head, *parts, "</svg>"]))  # noqa: S704 - its texts are escaped
