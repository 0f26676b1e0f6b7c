"""The sections of the report that say what came out: headline, answers, curves, evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from modelwright.reporting.beside import Compared, Player, Players, compared
from modelwright.reporting.blocks import (
    Figure,
    Table,
    aligned,
    duration,
    figures,
    flatten,
    scaled,
    shorten,
    whole,
)
from modelwright.reporting.charts import Bar, Series, bar_chart, line_chart, smooth
from modelwright.reporting.record import Curves, Measure, Points, Record, entries, mapping, text
from modelwright.reporting.record import number as as_number

ANSWERS, MORE = 4, 40  # answers shown at once, and those that can be opened
PROMPTS, VERSIONS = 4, 7  # samples over time: prompts a stage, and texts a prompt
RATE, LOSS, BITS = "items_per_second", "loss", "bits_per_byte"


@dataclass(frozen=True)
class Card:
    """One question of the headline: a figure that answers it, and lines around it."""

    question: str
    figure: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One graded question with everybody's answer: (who, text), ours first.

    ``compared`` is reference and our answer word by word, ``players`` what can be heard of it.
    """

    question: str
    answers: list[tuple[str, str]]
    score: str
    compared: list[Compared] = field(default_factory=list)
    players: list[Player] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """What the model wrote after one prompt while it learned: (step, text)."""

    stage: str
    prompt: str
    texts: list[tuple[str, str]]
    left_out: int


@dataclass(frozen=True)
class Judged:
    """One measure, drawn and in figures."""

    name: str
    verdict: str
    chart: Figure
    table: Table
    note: str


@dataclass(frozen=True)
class StageCurves:
    """The charts of one stage."""

    stage: str
    steps: int
    charts: list[Figure] = field(default_factory=list)


def verdict(measure: Measure) -> str:
    """Ours against the best baseline in a few words, whoever wins."""
    ours, rival = measure.ours, measure.rival
    if ours is None or ours[1] is None:
        return "our value is not finite"
    if rival is None:
        return "no baseline to compare with"
    value, who, other = ours[1], shorten(rival[0], 60), rival[1]
    if value == other:
        return f"equal to {who} ({figures(other)})"
    wins = (value < other) == measure.lower
    gap = f"{100 * abs(value / other - 1):.0f} %" if other else figures(abs(value))
    return f"{gap} {'better' if wins else 'worse'} than {who} ({figures(other)})"


def _kind(record: Record) -> str:
    """The model in a few words, from whatever the recipe calls its parts."""
    model = mapping(record.resolved.get("recipe")).get("model")
    flat = {k: v for k, v in flatten(mapping(model)).items() if isinstance(v, str | int | float)}
    facts = [text(v) if isinstance(v, str) else f"{k} {text(v)}" for k, v in flat.items()]
    return ", ".join(facts[:4]) or text(model if isinstance(model, str) else "")


def best_validation(curves: Curves) -> tuple[str, float, float] | None:
    """The lowest validation value as (name, step, value): bits per byte, else the loss."""
    for name in (BITS, LOSS):
        if points := curves.validation.get(name):
            step, value = min(points, key=lambda p: p[1])
            return name, step, value
    return None


def _ours(measure: Measure) -> str:
    """Our value with its unit."""
    ours = measure.ours
    value = figures(ours[1]) if ours and ours[1] is not None else "not finite"
    return f"{value} {measure.unit}".rstrip()


def _quality(record: Record) -> Card:
    """How good: the first measure, else the best validation so far, else nothing yet."""
    if record.measures:
        first, *others = record.measures
        lines = [f"{first.name}: {verdict(first)}"]
        lines += [f"{m.name}: {_ours(m)}, {verdict(m)}" for m in others[:2]]
        return Card("How good", _ours(first), tuple(shorten(line, 200) for line in lines))
    for stage, curves in record.metrics.items():
        if best := best_validation(curves):
            name, step, value = best
            line = (
                f"best validation {name.replace('_', ' ')} of {stage} so far, at step {step:,.0f}"
            )
            return Card("How good", figures(value), (f"{line}; not evaluated yet",))
    return Card("How good", "not known yet", ("no validation and no evaluation so far",))


def headline(record: Record) -> list[Card]:
    """What was trained, on what, how good it is and how long it took: a card each."""
    trained = [s for s in record.stages.values() if as_number(s.get("parameters"))]
    parameters = trained[0].get("parameters") if trained else None
    model = scaled(parameters) + " parameters" if trained else "not trained yet"
    tokens = sum(as_number(s.get("tokens")) or 0 for s in record.stages.values())
    train = mapping(mapping(record.split.get("splits")).get("train"))
    rows = f"{whole(train.get('rows'))} training rows" if train else "no data prepared yet"
    size = as_number(train.get("bytes"))
    seen = f"{scaled(tokens)} tokens seen in training" if tokens else ""
    machine = mapping(record.manifest.get("machine"))
    where = [
        text(machine.get("cpu")),
        f"{text(machine['cores'])} cores" if "cores" in machine else "",
    ]
    took = duration(record.seconds) if record.stages else "not started"
    return [
        Card("What", model, (shorten(_kind(record), 200),)),
        Card("On what", rows, (scaled(size, "B") if size else "", seen)),
        _quality(record),
        Card("How long", took, (shorten(", ".join(w for w in where if w), 200),)),
    ]


def answers(record: Record) -> list[Answer]:
    """Questions with the reference, our answer and the baselines' answers."""
    return _answers(record, "examples")


def worst(record: Record) -> list[Answer]:
    """The same, of the answers with the worst grades."""
    return _answers(record, "worst")


def _answers(record: Record, key: str) -> list[Answer]:
    found, players = [], Players(record)
    for example in entries(record.evaluation.get(key))[: ANSWERS + MORE]:
        heard = players.of(example.get("sounds"))
        said = [("this model", shorten(example.get("answer")))]
        said.append(("reference", shorten(example.get("reference"))))
        if heard and not any(told for _, told in said):  # it is heard alone
            said = []
        said += [(text(w), shorten(a)) for w, a in mapping(example.get("baselines")).items()]
        score = as_number(example.get("score"))
        shown = "" if score is None else f"{score:.3g}"
        pairs = compared(example.get("compared"))
        found.append(Answer(shorten(example.get("question")), said, shown, pairs, heard))
    return found


def _chart(caption: str, curves: Curves, key: str, **options: Any) -> Figure | None:
    """The chart of one metric, or None where nobody recorded it."""
    train, validation = curves.training.get(key, []), curves.validation.get(key, [])
    skipped = curves.skipped.get(key, 0)
    if not (train or validation or skipped):
        return None
    series = [Series("train", train)]
    if key in (LOSS, BITS, "gradient_norm", RATE) and len(train) > 20:
        series = [Series("train", train, "raw"), Series("train, smoothed", smooth(train))]
    series.append(Series("validation", validation, "validation"))
    note = f"{skipped:,} values were not finite and are not drawn." if skipped else ""
    return Figure(caption, line_chart(caption, series, **options), note)


def curves(record: Record) -> list[StageCurves]:
    """The charts of every stage that has metrics."""
    stages = []
    for stage, found in record.metrics.items():
        charts = [
            _chart("Bits per byte", found, BITS),
            _chart("Reward of drawn answers, mean", found, "reward", zero=True),
            _chart("Drift from the reference, nats an answer", found, "kl", zero=True),
            _chart("Length of drawn answers, tokens", found, "tokens", zero=True),
            _chart("Loss, nats per item", found, LOSS),
            _chart("Learning rate", found, "learning_rate", zero=True),
            _chart("Gradient norm before clipping", found, "gradient_norm", zero=True, log=True),
            _chart("Throughput, items per second", found, RATE, zero=True),
        ]
        if drawn := [c for c in charts if c]:
            stages.append(StageCurves(stage, found.steps, drawn))
    return stages


def _ends(points: Points) -> tuple[str, str]:
    """The first value and the smoothed last one."""
    return (figures(points[0][1]), figures(smooth(points)[-1][1])) if points else ("-", "-")


def curve_table(record: Record) -> Table | None:
    """The curves in figures, for those who cannot see them."""
    rows = []
    for stage, found in record.metrics.items():
        for key, name in ((BITS, "bits per byte"), (LOSS, "loss, nats per item")):
            train, held = found.training.get(key, []), found.validation.get(key, [])
            if not (train or held):
                continue
            step, value = min(held, key=lambda p: p[1]) if held else (math.nan, math.nan)
            best = (figures(value), f"{step:,.0f}") if held else ("-", "-")
            last = figures(held[-1][1]) if held else "-"
            rows.append((stage, name, f"{found.steps:,}", *_ends(train), last, *best))
    train_head = ("First, train", "Last, train smoothed")
    validation_head = ("Last, validation", "Best, validation", "at step")
    head = ("Stage", "Quantity", "Steps", *train_head, *validation_head)
    return Table("The curves in figures", head, "llrrrrrr", rows) if rows else None


def samples(record: Record) -> list[Samples]:
    """What the model wrote while it learned, a prompt at a time, first and last kept."""
    shown = []
    for stage, lines in record.samples.items():
        prompts: dict[str, list[tuple[str, str]]] = {}
        for line in lines:
            if "image" in line:
                continue  # not a text: see drawings
            step = as_number(line.get("step"))
            at = "-" if step is None else f"{step:,.0f}"
            prompts.setdefault(text(line.get("prompt")), []).append((at, shorten(line.get("text"))))
        for prompt, texts in list(prompts.items())[:PROMPTS]:
            last = len(texts) - 1
            keep = sorted({round(i * last / (VERSIONS - 1)) for i in range(VERSIONS)})
            some = [texts[i] for i in keep]
            shown.append(Samples(stage, shorten(prompt, 1000), some, len(texts) - len(some)))
    return shown


def evaluation(record: Record) -> list[Judged]:
    """Every measure beside its baselines, the best on top."""
    judged = []
    for m in record.measures:
        ranked = m.ranked
        shown = aligned([value for _, value in ranked])
        bars = [
            Bar(who, value, label, strong=(who, value) == m.ours)
            for (who, value), label in zip(ranked, shown, strict=True)
            if value is not None
        ]
        way = "lower is better" if m.lower else "higher is better"
        caption = f"{m.unit}, {way}" if m.unit else way.capitalize()
        rows = [(who, label) for (who, _), label in zip(ranked, shown, strict=True)]
        unit = f"Value, {m.unit}" if m.unit else "Value"
        table = Table(m.name, ("Who", unit), "lr", rows)
        chart = Figure(caption, bar_chart(f"{m.name}, {way}", bars))
        judged.append(Judged(m.name, verdict(m), chart, table, m.note))
    return judged


def slices(record: Record) -> list[Table]:
    """The measure of single answers by the length of what is asked, and by its kind."""
    tables = []
    for part in entries(record.evaluation.get("slices")):
        rows = []
        for row in entries(part.get("rows")):
            value, low, high = (_figure(row.get(key)) for key in ("value", "low", "high"))
            which = shorten(row.get("which"), 80)
            rows.append((which, value, f"{low} to {high}", whole(row.get("count"))))
        name = f"{text(part.get('unit'))} by {text(part.get('by'))}, {text(part.get('stage'))}"
        head = ("Which", "Mean", "95 % interval", "Answers")
        tables.append(Table(shorten(name, 200), head, "lrrr", rows))
    return tables


def _figure(value: Any) -> str:
    found = as_number(value)
    return "-" if found is None else figures(found)
