"""Small charts as inline SVG: no script, no request, colours from the page's style sheet.

A chart is drawn in a box ``WIDTH`` units wide, so that its text stays readable when a phone
shows it at that width. Every mark carries a ``<title>``, which browsers show on hover, and the
whole chart carries a spoken summary (``aria-label``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from modelwright.reporting.record import Points

WIDTH, HEIGHT = 360, 220
CHARACTER = 6.7  # mean width of a character of the 12-unit labels, in a wide typeface
BUCKETS = 150  # a line keeps at most two points in each
STRIPS = 60  # hover targets along the x axis
FEW = 6  # so many points or fewer get a value label each


@dataclass(frozen=True)
class Series:
    """One line: ``kind`` is "train" (solid), "raw" (faint) or "validation" (with dots)."""

    name: str
    points: Points
    kind: str = "train"


@dataclass(frozen=True)
class Bar:
    """One horizontal bar from zero; ``rest`` follows a positive ``value`` in a second colour."""

    label: str
    value: float
    shown: str
    strong: bool = True
    rest: float = 0.0
    title: str = ""


def decimate(points: Points, buckets: int = BUCKETS) -> Points:
    """At most ``2 * buckets + 2`` of the points: the ends, and the extremes of every bucket.

    Extremes are kept rather than means, so that a spike of one step stays visible.
    """
    if len(points) <= 2 * buckets + 2:
        return list(points)
    keep = {0, len(points) - 1}
    for b in range(buckets):
        span = range(b * len(points) // buckets, (b + 1) * len(points) // buckets)
        keep.add(min(span, key=lambda i: points[i][1]))
        keep.add(max(span, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(keep)]


def smooth(points: Points) -> Points:
    """Exponential moving average over about a fiftieth of the points, without start-up bias.

    m_t = b m_(t-1) + (1 - b) v_t, shown as m_t / (1 - b^t), as in Adam (Kingma and Ba, 2014).
    """
    keep = 1 - 2 / (max(1.0, len(points) / 50) + 1)
    mean, weight, result = 0.0, 0.0, []
    for x, y in points:
        mean = keep * mean + (1 - keep) * y
        weight = keep * weight + (1 - keep)
        result.append((x, mean / weight))
    return result


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """About ``target`` round numbers (1, 2 or 5 times a power of ten) that enclose the range."""
    if high - low <= max(abs(low), abs(high)) * 1e-6 or high - low < 1e-30:
        middle = (low + high) / 2
        half = abs(middle) * 0.1 if abs(middle) > 1e-30 else 0.5
        low, high = middle - half, middle + half
    raw = (high - low) / target
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose a positive range, thinned where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 6))
    return [10.0**e for e in range(first, last + every, every)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels with the decimals that tell neighbouring ticks apart: "10k", "0.002", "3e-5"."""
    top = max(abs(v) for v in values) or 1.0
    gap = math.floor(math.log10(min((b - a for a, b in pairwise(values)), default=top)) + 1e-9)
    exponent = math.floor(math.log10(top))
    if not -3 <= exponent < 15:
        digits = max(0, exponent - gap)
        return ["0" if v == 0 else f"{v / 10.0**exponent:.{digits}f}e{exponent}" for v in values]
    units = ((12, 1e12, "T"), (9, 1e9, "G"), (6, 1e6, "M"), (3, 1e4, "k"))
    power, suffix = next(((p, s) for p, least, s in units if top >= least), (0, ""))
    decimals = max(0, power - gap)
    return ["0" if v == 0 else f"{v / 10.0**power:.{decimals}f}{suffix}" for v in values]


def _text(x: float, y: float, content: str, role: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{role}" {place}>{escape(content)}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return Markup("\n".join([head, *parts, "</svg>"]))  # noqa: S704 - its texts are escaped


@dataclass(frozen=True)
class _Plane:
    """Where data falls on the page: both axes and the plot's corners."""

    x_range: tuple[float, float]
    x_ticks: list[float]
    y_ticks: list[float]
    log: bool
    left: float
    top: float = 26.0
    right: float = WIDTH - 16.0
    bottom: float = HEIGHT - 36.0

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def _plane(series: Sequence[Series], *, zero: bool, log: bool) -> _Plane:
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    log = log and min(ys) > 1e-30 and max(ys) > 30 * min(ys)
    low, high = 0.0 if 0 <= min(xs) < 0.2 * max(xs) else min(xs), max(xs)
    x_ticks = [t for t in ticks(low, high) if abs(t - round(t)) < 1e-9]  # steps are whole
    if high > low:
        x_ticks = [t for t in x_ticks if low <= t <= high] or [low, high]
    else:
        low, high = low - 1, low + 1
        x_ticks = [low + 1]
    if log:
        y_ticks = _log_ticks(min(ys), max(ys))
    else:
        y_ticks = ticks(min(0.0, *ys) if zero else min(ys), max(ys))
    longest = max(len(label) for label in _axis_labels(y_ticks, log=log))
    return _Plane((low, high), x_ticks, y_ticks, log, left=longest * CHARACTER + 12)


def _axis_labels(values: Sequence[float], *, log: bool) -> list[str]:
    if not log:
        return tick_labels(values)
    return [f"{v:g}" if 1e-3 <= v < 1e5 else f"1e{round(math.log10(v))}" for v in values]


def _axes(plane: _Plane, x_label: str) -> list[str]:
    parts = []
    for value, label in zip(plane.y_ticks, _axis_labels(plane.y_ticks, log=plane.log), strict=True):
        y = plane.y(value)
        parts.append(f'<path class="grid" d="M{plane.left:.1f} {y:.1f}H{plane.right:.1f}"/>')
        parts.append(_text(plane.left - 6, y + 4, label, "tick", "end"))
    labels = tick_labels(plane.x_ticks)
    for value, label in zip(plane.x_ticks, labels, strict=True):
        x = plane.x(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {plane.bottom:.1f}v4"/>')
        parts.append(_text(x, plane.bottom + 16, label, "tick", "middle"))
    parts.append(_text(plane.right, HEIGHT - 4, x_label, "tick", "end"))
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    if len(series) < 2:
        return []
    parts, x = [], 0.0
    for s in series:
        mark = f'<path class="{s.kind}" d="M{x:.1f} 10h16"/>'
        if s.kind == "validation":
            mark += f'<circle class="dot" cx="{x + 8:.1f}" cy="10" r="3.5"/>'
        parts += [mark, _text(x + 21, 14, s.name, "name")]
        x += 33 + len(s.name) * CHARACTER
    return parts


def _hits(series: Sequence[Series], plane: _Plane, x_label: str) -> list[str]:
    """Invisible strips over the plot whose titles give the values below the pointer."""
    width = (plane.right - plane.left) / STRIPS
    strips: dict[int, dict[str, tuple[float, float]]] = {}
    for s in series:
        for x, y in s.points:
            at = min(int((plane.x(x) - plane.left) / width), STRIPS - 1)
            strips.setdefault(at, {})[s.name] = (x, y)
    parts = []
    for at, values in sorted(strips.items()):
        lines = [f"{x_label} {x:,.0f}: {name} {y:.4g}" for name, (x, y) in values.items()]
        parts.append(
            f'<rect class="hit" x="{plane.left + at * width:.1f}" y="{plane.top}" '
            f'width="{width:.1f}" height="{plane.bottom - plane.top:.1f}">'
            f"<title>{escape(chr(10).join(lines))}</title></rect>"
        )
    return parts


def _dots(s: Series, plane: _Plane, x_label: str) -> list[str]:
    """Dots with hover titles; all get a value label where there are few, else the last one."""
    parts = []
    for i, (x, y) in enumerate(s.points):
        px, py = plane.x(x), plane.y(y)
        title = escape(f"{x_label} {x:,.0f}: {s.name} {y:.4g}")
        at = f'cx="{px:.1f}" cy="{py:.1f}" r="3.5"'
        parts.append(f'<circle class="dot" {at}><title>{title}</title></circle>')
        if len(s.points) <= FEW or i == len(s.points) - 1:
            anchor = "end" if px > plane.right - 20 else "middle"
            above = py - 8 if py > plane.top + 14 else py + 18
            parts.append(_text(px, above, f"{y:.4g}", "value", anchor))
    return parts


def line_chart(
    label: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    zero: bool = False,
    log: bool = False,
) -> Markup:
    """Draw lines over one axis.

    Args:
        label: What the chart shows, for those who hear it; a summary of each line follows it.
        series: Lines with finite points in order of x; those without points are left out.
        x_label: Name of the x axis and its unit.
        zero: Let the y axis begin at zero.
        log: Use a logarithmic y axis where all values are positive and span a factor of 30.

    Returns:
        An ``<svg>`` element, or nothing where no series has points.
    """
    shown = [Series(s.name, decimate(s.points), s.kind) for s in series if s.points]
    if not shown:
        return Markup("")
    plane = _plane(shown, zero=zero, log=log)
    lines, dots = [], []
    for s in shown:
        path = "L".join(f"{plane.x(x):.1f} {plane.y(y):.1f}" for x, y in s.points)
        lines.append(f'<path class="{s.kind}" d="M{path}"/>')
        if s.kind == "validation" or len(s.points) == 1:
            dots += _dots(s, plane, x_label)
    summary = "; ".join(
        f"{s.name} from {s.points[0][1]:.4g} to {s.points[-1][1]:.4g}" for s in shown
    )
    hits = _hits(shown, plane, x_label)
    parts = [*_axes(plane, x_label), *_legend(shown), *lines, *hits, *dots]
    if plane.log:
        parts.append(_text(0, HEIGHT - 4, "log scale", "tick"))
    return _svg(HEIGHT, f"{label}: {summary}", parts)


def _block(role: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{role}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="12" rx="2"/>'


def bar_chart(label: str, bars: Sequence[Bar]) -> Markup:
    """Draw horizontal bars from zero, each below its own label so that long names fit.

    Args:
        label: What the chart shows, for those who hear it; the values follow it.
        bars: In the order from top to bottom; values and rests are finite.

    Returns:
        An ``<svg>`` element, or nothing where there are no bars.
    """
    if not bars:
        return Markup("")
    low = min(0.0, *(b.value for b in bars))
    high = max(0.0, *(b.value + b.rest for b in bars))
    room = WIDTH - 1.15 * CHARACTER * max(len(b.shown) for b in bars) - 8  # values are bold
    unit = room / (high - low if high - low > 1e-30 else 1.0)
    zero, parts, row = -low * unit, [], 36
    fits = int(WIDTH / CHARACTER) - 1
    for i, b in enumerate(bars):
        y, width = i * row, max(abs(b.value) * unit, 1.0)
        left = zero if b.value >= 0 else zero - width
        name = b.label if len(b.label) <= fits else f"{b.label[: fits - 1]}\u2026"
        role = "bar" if b.strong else "bar other"
        ends = left + width
        parts.append(f"<g><title>{escape(b.title or f'{b.label}: {b.shown}')}</title>")
        parts.append(_text(0, y + 12, name, "name strong" if b.strong else "name"))
        parts.append(_block(role, left, y + 17, width))
        if b.rest > 0:
            parts.append(_block("bar rest", ends + 1, y + 17, max(b.rest * unit - 1, 1)))
            ends += b.rest * unit
        parts.append(_text(max(ends, zero) + 6, y + 27, b.shown, "value"))
        parts.append("</g>")
    summary = "; ".join(f"{b.label} {b.shown}" for b in bars)
    return _svg(len(bars) * row, f"{label}: {summary}", parts)
