"""What a model card tells, gathered from the files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modelwright.data import catalog
from modelwright.errors import ModelwrightError
from modelwright.hub.card import Card, Source
from modelwright.hub.replay import Replayed
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import Fitted
from modelwright.runs import Run, fingerprint
from modelwright.version import __version__

_SHOWN = (
    "task",
    "objective",
    "steps",
    "batch",
    "optimizer",
    "learning_rate",
    "schedule",
    "warmup",
    "decay",
    "weight_decay",
    "precision",
)
_LICENCES = {"python-stdlib": "PSF-2.0"}  # made here, so in no catalog


def card_of(
    run: Run, fitted: Fitted, hashes: Mapping[str, str], proof: Replayed, *, license: str = ""
) -> Card:
    """The card of a run's model."""
    recipe = run.recipe
    came = run.manifest.get("published") or {}
    parameters = sum(p.numel() for p in fitted.model.parameters())
    stage = fitted.path.parent.name
    about = [f"a {fitted.config.family} of {parameters:,} parameters, stage `{stage}`"]
    if came:
        at = f" at revision `{came['revision']}`" if came.get("revision") else ""
        about.append(f"began with the published weights of {_shown(came['source'])}{at}")
    stages = {n: run.stage(n) for n in recipe.stages if run.stage(n).get("status")}
    measured = (run.read_json("evaluation.json") or {}).get("measures", [])
    return Card(
        name=recipe.name,
        about=about,
        base=str(came.get("source", "")),
        task=answerer_of(fitted).tag,
        license=license,
        sources=[_source(run)],
        data=_steps(run),
        training={n: _training(record) for n, record in stages.items()},
        measures=measured,
        limits=_limits(fitted, measured),
        cost=_cost(run, stages),
        proof=(
            f"{proof.samples} stored samples went through these files, read back, and through the "
            f"trained model: {proof.outputs} outputs differ by at most {proof.largest:.1e} of "
            f"their largest value ({proof.tolerance:.0e} is allowed)."
        ),
        hashes=hashes,
        recipe=_recipe(run),
        version=__version__,
    )


def _source(run: Run) -> Source:
    """The data's name, licence, rows, and one hash of all its files."""
    name = run.recipe.data.source
    licence = _LICENCES.get(name, "")
    try:
        licence = licence or catalog.entry(name).license
    except ModelwrightError:  # a file of the user's: only they know
        licence = licence or ""
    steps = run.read_json("data/waterfall.json") or [{}]
    inputs = run.stage("prepare").get("inputs")
    also = run.recipe.data.also
    shown = _shown(name) + (f", and {_shown(also.source)} for training" if also else "")
    return Source(shown, licence, steps[0].get("rows_in"), fingerprint(inputs) if inputs else "")


def _recipe(run: Run) -> str:
    """The recipe without the places of files, which are nobody else's."""
    values = run.recipe.model_dump(exclude_unset=True)
    data = values.get("data") or {}
    for section in (values.get("model") or {}, data, data.get("also") or {}):
        for key in ("from", "source", "path"):
            if isinstance(found := section.get(key), str):
                section[key] = _shown(found)
    written: str = yaml.safe_dump(values, sort_keys=False)
    return written


def _shown(source: str) -> str:
    """A name for others: of a path only its last part."""
    return source if "://" in source or source.startswith("hub:") else Path(source).name


def _steps(run: Run) -> list[str]:
    """What became of the rows, step by step, and how they are divided."""
    lines = []
    for step in run.read_json("data/waterfall.json") or ():
        dropped = ", ".join(f"{n:,} {why}" for why, n in step["dropped"].items())
        lines.append(
            f"{step['step']}: {step['rows_in']:,} rows in, {step['rows_out']:,} kept"
            + (f"; dropped: {dropped}" if dropped else "")
        )
    for part, rows in (run.stage("prepare").get("outputs") or {}).items():
        lines.append(f"{part}: {rows:,} examples")
    return lines


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    resolved = record.get("resolved") or {}
    found = {k: resolved[k] for k in _SHOWN if resolved.get(k) is not None}
    counted = {k: record[k] for k in ("tokens", "items") if isinstance(record.get(k), int)}
    return {**found, **{f"{k} read" if k == "tokens" else k: v for k, v in counted.items()}}


def _limits(fitted: Fitted, measures: Any) -> list[str]:
    """What the record says against the model."""
    lines = []
    if context := getattr(fitted.config, "context", None):
        lines.append(f"reads at most {context:,} tokens at once")
    for measure in measures:
        rows = {r["who"]: r["value"] for r in measure.get("rows", ())}
        ours = rows.pop("ours", None)
        sign = 1 if measure.get("better") == "higher" else -1
        for who, value in rows.items():
            if ours is not None and sign * (value - ours) >= 0:
                lines.append(f"{measure['name']}: {who} is as good or better")
    lines.append("measured only on held-out rows of the data above; nothing is known beyond them")
    lines.append("biases and harmful answers were not examined")
    return lines


def _cost(run: Run, stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, record in stages.items():
        flops = f", {record['flops']:.2g} FLOPs" if record.get("flops") else ""
        lines.append(f"{name}: {record.get('seconds', 0):,.0f} s{flops}")
    machine = run.manifest.get("machine") or {}
    if machine:
        lines.append(
            f"on {machine.get('cores')} cores of {machine.get('cpu')}, device "
            f"{machine.get('device')}"
        )
    return lines
