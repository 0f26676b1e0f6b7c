"""Charts: round ticks, honest decimation, no text that escapes."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.reporting.charts import (
    BUCKETS,
    FEW,
    Bar,
    Series,
    bar_chart,
    decimate,
    line_chart,
    smooth,
    tick_labels,
    ticks,
)

VALUES = st.floats(-1e99, 1e99)
STEPS = st.integers(0, 10**12).map(float)
LINES = st.lists(st.tuples(STEPS, VALUES), unique_by=lambda p: p[0], max_size=40).map(sorted)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30)


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own output


@given(VALUES, VALUES)
def test_ticks_are_round_few_and_enclose_the_range(a, b):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    step = found[1] - found[0]
    for left, right in itertools.pairwise(found):
        assert right - left == pytest.approx(step, rel=1e-4)
    mantissa = step / 10.0 ** math.floor(math.log10(step * 1.0001))
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-3
    slack = step * 1e-5
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


@given(VALUES, VALUES)
def test_labels_of_ticks_differ(a, b):
    found = ticks(min(a, b), max(a, b))
    labels = tick_labels(found)
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 5000, 10000, 15000, 20000], ["0", "5k", "10k", "15k", "20k"]),
        ([0, 0.005, 0.01, 0.015], ["0", "0.005", "0.010", "0.015"]),
        ([1.0, 1.5, 2.0], ["1.0", "1.5", "2.0"]),
        ([0, 2e-5, 4e-5], ["0", "2e-5", "4e-5"]),
        ([-2, -1, 0], ["-2", "-1", "0"]),
        ([0, 5e5, 1e6], ["0", "0.5M", "1.0M"]),
    ],
)
def test_labels_read_as_people_write(values, labels):
    assert tick_labels(values) == labels


@given(st.lists(VALUES, max_size=2000))
def test_decimation_keeps_the_ends_the_extremes_and_the_order(values):
    points = list(enumerate(values))
    kept = decimate(points)
    assert len(kept) <= 2 * BUCKETS + 2
    assert kept == [p for p in points if p in set(kept)]
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert min(v for _, v in kept) == min(values)
        assert max(v for _, v in kept) == max(values)


def test_decimation_of_a_long_series_keeps_a_spike():
    points = [(float(i), 1.0) for i in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    assert (54_321.0, 9.0) in decimate(points)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_smoothing_starts_at_the_first_value_and_stays_between_the_extremes(values):
    smoothed = [y for _, y in smooth([(float(i), v) for i, v in enumerate(values)])]
    assert smoothed[0] == pytest.approx(values[0], rel=1e-9, abs=1e-9)
    assert min(values) - 1e-6 <= min(smoothed)
    assert max(smoothed) <= max(values) + 1e-6


def test_smoothing_keeps_a_constant():
    assert [y for _, y in smooth([(i, 2.5) for i in range(500)])] == pytest.approx([2.5] * 500)


@given(LINES, LINES, ANY_TEXT, st.booleans(), st.booleans())
def test_every_line_chart_is_well_formed_and_inside_its_box(train, held, name, zero, log):
    series = [Series(name, train, "raw"), Series("validation", held, "validation")]
    svg = line_chart(name, series, zero=zero, log=log)
    if not train and not held:
        assert svg == ""
        return
    root = parse(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for path in root.iter("path"):
        if path.get("class") in ("raw", "validation"):
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d").split("h")[0])]
            assert all(0 <= x <= width for x in numbers[::2])
            assert all(0 <= y <= height for y in numbers[1::2])


@given(st.lists(st.tuples(ANY_TEXT, VALUES), max_size=8))
def test_every_bar_chart_is_well_formed_and_inside_its_box(rows):
    svg = bar_chart("bars", [Bar(who, v, f"{v:.3g}", rest=max(v, 0)) for who, v in rows])
    if not rows:
        assert svg == ""
        return
    root = parse(svg)
    width = float(root.get("viewBox").split()[2])
    for rect in root.iter("rect"):
        left, extent = float(rect.get("x")), float(rect.get("width"))
        assert left >= -1.1
        assert left + extent <= width + 2.1


def test_lengths_of_bars_are_in_the_proportion_of_their_values():
    root = parse(bar_chart("bars", [Bar("a", 3.0, "3"), Bar("b", 1.5, "1.5")]))
    first, second = (float(rect.get("width")) for rect in root.iter("rect"))
    assert first == pytest.approx(2 * second, rel=0.01)


def test_text_is_escaped_everywhere():
    evil = '<script>alert("x")</script>'
    svg = line_chart(evil, [Series(evil, [(1, 2.0), (2, 3.0)], "validation")], x_label=evil)
    bars = bar_chart(evil, [Bar(evil, 1.0, evil, title=evil)])
    assert "<script" not in svg + bars
    assert parse(svg).get("aria-label").startswith(evil)


def test_few_points_are_labelled_and_of_many_only_the_last():
    def values(count):
        points = [(float(i), 1.5 * i) for i in range(1, count + 1)]
        root = parse(line_chart("chart", [Series("validation", points, "validation")]))
        return [t.text for t in root.iter("text") if t.get("class") == "value"]

    assert len(values(FEW)) == FEW
    assert values(FEW + 1) == [f"{1.5 * (FEW + 1):.4g}"]


def test_hover_titles_tell_step_and_value():
    svg = line_chart("chart", [Series("train", [(10, 2.25), (20, 2.0)]), Series("raw", [(10, 3)])])
    titles = [t.text for t in parse(svg).iter("title")]
    strips = ["step 10: train 2.25\nstep 10: raw 3", "step 20: train 2"]
    assert titles == [*strips, "step 10: raw 3"]  # the dot of the lone point


def test_a_logarithmic_axis_is_used_only_where_it_helps():
    wide = [Series("norm", [(1, 0.01), (2, 1.0), (3, 100.0)])]
    narrow = [Series("norm", [(1, 1.0), (2, 2.0)])]
    assert "log scale" in line_chart("norm", wide, log=True)
    assert "log scale" not in line_chart("norm", narrow, log=True)
    assert "log scale" not in line_chart("norm", wide)
