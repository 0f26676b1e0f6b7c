"""The histogram of a measure, drawn from counts by bin as a corpus keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from modelwright.reporting.charts import WIDTH, tick_labels, ticks

COLUMNS, HEIGHT, BOTTOM, TOP = 36, 150, 118.0, 16.0
RATIO = 10 ** (1 / 20)  # between the edges of two bins beyond 1
INNER = 0.02  # width of a bin from 0 to 1
WIDE = 30  # from this ratio of largest to smallest on the axis is logarithmic


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """0 at the left end, 1 at the right one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


def upper_edge(edge: float) -> float:
    """Where the bin that begins at ``edge`` ends: 0.02 further within 0 to 1, else 20 a decade."""
    if 0 <= edge < 1:
        return min(1.0, edge + INNER)
    return edge * RATIO if edge > 0 else edge / RATIO


def _columns(bins: Sequence[tuple[float, float, float]], axis: _Axis) -> list[float]:
    """Counts in columns of equal width; a bin that lies in several gives each its part."""
    heights = [0.0] * COLUMNS
    for edge, upper, count in bins:
        left, right = axis.at(edge) * COLUMNS, axis.at(upper) * COLUMNS
        first = min(int(left), COLUMNS - 1)
        if right - left < 1e-9:
            heights[first] += count
            continue
        for column in range(first, min(math.ceil(right), COLUMNS)):
            part = min(right, column + 1) - max(left, column)
            heights[column] += count * max(0.0, part) / (right - left)
    return heights


def _counts(bins: Mapping[str, object], most: float) -> list[tuple[float, float, float]]:
    """(from, to, count) of every bin, in order; none reaches beyond the largest value."""
    found = []
    for key, count in bins.items():
        try:
            edge = float(key)
        except ValueError:
            continue
        if math.isfinite(edge) and isinstance(count, int | float) and count > 0:
            found.append((edge, max(edge, min(upper_edge(edge), most)), float(count)))
    return sorted(found)


def _axis(edges: Sequence[float], limits: Sequence[float]) -> _Axis:
    values = [*edges, *limits]
    positive = [v for v in values if v > 0]
    low, high = min(values), max(values)
    if low >= 0 and positive and high > 1 and high / min(positive) > WIDE:
        return _Axis(max(min(positive), high / 1e9), high, log=True)
    if high - low < 1e-9 * max(abs(high), 1.0):
        low, high = low - 0.5, high + 0.5
    return _Axis(low, high, log=False)


def _marks(axis: _Axis) -> list[tuple[float, str]]:
    if not axis.log:
        inside = [t for t in ticks(axis.low, axis.high, 4) if axis.low <= t <= axis.high]
        return list(zip(inside, tick_labels(inside), strict=True)) if inside else []
    first, last = math.ceil(math.log10(axis.low) - 1e-9), math.floor(math.log10(axis.high) + 1e-9)
    every = max(1, math.ceil((last - first) / 5))
    powers = range(first, last + 1, every)
    return [(10.0**p, f"{10.0**p:g}" if -4 < p < 5 else f"1e{p}") for p in powers]


def histogram(
    label: str,
    bins: Mapping[str, object],
    limits: Sequence[float] = (),
    most: float = math.inf,
) -> Markup:
    """Draw a histogram.

    Args:
        label: what is measured, for those who hear it.
        bins: lower edge, as text -> count; the bins of ``upper_edge``.
        limits: values at which a rule decides, drawn as dashed lines.
        most: the largest value that was measured, where that is known.

    Returns:
        An ``<svg>`` element, or nothing where nothing was counted.
    """
    counts = _counts(bins, most)
    if not counts:
        return Markup("")
    axis = _axis([value for edge, upper, _ in counts for value in (edge, upper)], limits)
    heights = _columns(counts, axis)
    top, width = max(heights), WIDTH / COLUMNS
    total = sum(count for _, _, count in counts)
    said = f"{label}: {total:,.0f} rows from {counts[0][0]:g} to {counts[-1][1]:g}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">']
    parts.append(f'<path class="grid" d="M0 {BOTTOM}H{WIDTH}"/>')
    for column, height in enumerate(heights):
        if height > 0:
            tall = max(1.0, height / top * (BOTTOM - TOP))
            parts.append(
                f'<rect class="bar" x="{column * width + 0.5:.1f}" y="{BOTTOM - tall:.1f}" '
                f'width="{width - 1:.1f}" height="{tall:.1f}"><title>{height:,.0f}</title></rect>'
            )
    for value in limits:
        x = axis.at(value) * WIDTH
        parts.append(f'<path class="validation" d="M{x:.1f} {TOP}V{BOTTOM}"/>')
        side = ("end", -4) if x > WIDTH / 2 else ("start", 4)
        parts.append(
            f'<text class="value" x="{x + side[1]:.1f}" y="12" text-anchor="{side[0]}">'
            f"{value:g}</text>"
        )
    for value, name in _marks(axis):
        x = axis.at(value) * WIDTH
        anchor = "start" if x < 12 else "end" if x > WIDTH - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{BOTTOM + 16}" text-anchor="{anchor}">{name}</text>'
        )
    if axis.log:
        parts.append(f'<text class="tick" x="0" y="{HEIGHT - 2}">log scale</text>')
    return Markup("\n".join([*parts, "</svg>"]))  # noqa: S704 - its texts are escaped
