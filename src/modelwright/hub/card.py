"""The model card: README.md in the hub's format, filled from what a run has recorded.

It says nothing that was not measured or written down; what is unknown is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True)
class Source:
    """Data: what, under which licence, how many rows."""

    name: str
    license: str = ""
    rows: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
        name: of the model.
        about: family, parameters, what it does: lines.
        base: the published checkpoint that it began with, and its revision; or "".
        task: the hub's word for the task, such as "text-generation"; or "".
        license: of the weights as the user states it; "" is said to be undecided.
        sources: of the data.
        data: further lines about data: steps of cleaning, rows dropped, split.
        training: stage -> field -> value.
        measures: as evaluation.json holds them: name, unit, better, rows of who and value, note.
        limits: lines.
        cost: lines.
        proof: how the written files were compared with the trained model.
        hashes: file -> SHA-256.
        recipe: the recipe in YAML.
        version: of modelwright.
        usage: how to run the files, in Markdown; "" where their library's users know.
        library: the hub's name of the library that reads them.
    """

    name: str
    about: Sequence[str]
    base: str = ""
    task: str = ""
    license: str = ""
    sources: Sequence[Source] = ()
    data: Sequence[str] = ()
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measures: Sequence[Mapping[str, Any]] = ()
    limits: Sequence[str] = ()
    cost: Sequence[str] = ()
    proof: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    version: str = ""
    usage: str = ""
    library: str = "transformers"


def render(card: Card) -> str:
    """README.md of a card: the hub's front matter in YAML, then Markdown."""
    parts = [
        f"# {card.name}",
        _lines(card.about),
        *([f"## How to run\n\n{card.usage}"] if card.usage else []),
        _section("Data", [*map(_source, card.sources), *card.data], "Not recorded."),
        "## Training\n\n" + (_training(card.training) or "Not recorded."),
        "## Evaluation\n\n" + (_measures(card.measures) or "Not measured."),
        _section("Limits", card.limits, "Not examined."),
        _section("Cost", card.cost, "Not recorded."),
        "## Files\n\n" + "\n\n".join(p for p in (card.proof, _hashes(card.hashes)) if p),
    ]
    if card.recipe:
        parts.append(f"## Recipe\n\n```yaml\n{card.recipe.rstrip()}\n```")
    return f"---\n{_front(card)}---\n\n" + "\n\n".join(parts) + "\n"


def _front(card: Card) -> str:
    """The fields that the hub reads."""
    values: dict[str, Any] = {"library_name": card.library, "tags": ["modelwright"]}
    values["license"] = card.license or "unknown"
    if card.task:
        values["pipeline_tag"] = card.task
    if card.base.startswith("hub:"):
        values["base_model"] = card.base.removeprefix("hub:").partition("@")[0]
    written: str = yaml.safe_dump(values, sort_keys=True, allow_unicode=True)
    return written


def _section(title: str, lines: Sequence[str], otherwise: str) -> str:
    return f"## {title}\n\n{_lines(lines) if lines else otherwise}"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _source(source: Source) -> str:
    rows = "" if source.rows is None else f"; {source.rows:,} rows"
    mark = f"; sha256 {source.sha256}" if source.sha256 else ""
    return f"{source.name}: licence: {source.license or 'not recorded'}{rows}{mark}"


def _training(stages: Mapping[str, Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    fields = list(dict.fromkeys(name for values in stages.values() for name in values))
    rows = [[name, *(_cell(values.get(name, "")) for values in stages.values())] for name in fields]
    return _table(["", *stages], rows)


def _measures(measures: Sequence[Mapping[str, Any]]) -> str:
    """A table for each measure: ours beside the baselines."""
    parts = []
    for measure in measures:
        rows = [[str(r["who"]), f"{r['value']:.4g}"] for r in measure.get("rows", ())]
        better = f"{measure['name']} ({measure['better']} is better)"
        parts.append("\n\n".join(p for p in (_table(["", better], rows), measure.get("note")) if p))
    return "\n\n".join(parts)


def _hashes(hashes: Mapping[str, str]) -> str:
    return _table(["file", "sha256"], [[name, f"`{value}`"] for name, value in hashes.items()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_safe(c) for c in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
