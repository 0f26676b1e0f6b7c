"""The sections of the report on labels: what was taken for what, and how sure that was."""

from __future__ import annotations

from collections import Counter
from typing import Any

from modelwright.reporting.blocks import Figure, Table, shorten, whole
from modelwright.reporting.charts import Series, line_chart
from modelwright.reporting.record import Record, entries, number, text

SQUARE = 12  # labels at most whose table has a column each
PAIRS = 20  # else so many pairs of labels
NAME = 24  # characters of a label


def confusions(record: Record) -> list[Table]:
    """Of every stage how often each label was answered where each was meant."""
    tables = []
    for part in entries(record.evaluation.get("confusions")):
        counts = _counts(part.get("cells"))
        listed = part.get("labels")
        labels = [text(n) for n in listed] if isinstance(listed, list) else []
        labels += [n for n in sorted({n for pair in counts for n in pair}) if n not in labels]
        stage = shorten(part.get("stage"), 40)
        if counts and len(labels) <= SQUARE:
            tables.append(_square(stage, labels, counts))
        elif counts:
            tables.append(_pairs(stage, counts))
    return tables


def _counts(cells: Any) -> Counter[tuple[str, str]]:
    """(meant, said) -> how often; what is no such cell is left out."""
    found: Counter[tuple[str, str]] = Counter()
    for cell in cells if isinstance(cells, list) else []:
        if isinstance(cell, list) and len(cell) == 3 and (count := number(cell[2])):
            found[text(cell[0]), text(cell[1])] += int(count)
    return found


def _square(stage: str, labels: list[str], counts: Counter[tuple[str, str]]) -> Table:
    rows = [
        (shorten(meant, NAME), *(whole(counts[meant, said]) for said in labels)) for meant in labels
    ]
    head = ("Meant", *(f"said {shorten(said, NAME)}" for said in labels))
    return Table(f"What was taken for what, {stage}", head, "l" + "r" * len(labels), rows)


def _pairs(stage: str, counts: Counter[tuple[str, str]]) -> Table:
    meant = Counter[str]()
    for (label, _), count in counts.items():
        meant[label] += count
    wrong = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]]
    rows = [
        (shorten(one, NAME), shorten(other, NAME), whole(count), f"{count / meant[one]:.1%}")
        for (one, other), count in wrong[:PAIRS]
    ]
    head = ("Meant", "Said", "Answers", "Of those meant")
    return Table(f"The commonest mistakes, {stage}", head, "llrr", rows)


def calibrations(record: Record) -> list[Figure]:
    """Of every stage how often answers are right by how sure they are, in percent."""
    drawn = []
    for part in entries(record.evaluation.get("calibration")):
        found = [
            [number(row.get(k)) for k in ("said", "right")] for row in entries(part.get("rows"))
        ]
        points = [(100 * a, 100 * b) for a, b in found if a is not None and b is not None]
        if len(points) > 1:
            caption = f"Right, % of answers, by how sure they are, {shorten(part.get('stage'), 40)}"
            even = Series("as sure as right", [(x, x) for x, _ in points], "raw")
            series = [even, Series("this model", points, "validation")]
            chart = line_chart(caption, series, x_label="sure, %")
            drawn.append(Figure(caption, chart))
    return drawn
