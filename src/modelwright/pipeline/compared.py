"""What is measured of models that were taught which answers are better: on held-out pairs.

An answer's reward is what the objective makes of it (``rewards``). The preference accuracy is the
share of pairs of which the chosen answer has the higher reward; of single answers, the share whose
reward is above 0 where they are good and below where they are bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.evaluation.bag_of_words import BagOfWords
from modelwright.evaluation.metrics import Accuracy, Mean
from modelwright.pipeline import graded
from modelwright.pipeline.asked import key
from modelwright.pipeline.fitted import BATCH, Fitted, fitting, rows_that_fit
from modelwright.pipeline.predicted import examples_of
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.references import referred
from modelwright.runs import Run
from modelwright.training.examples import once
from modelwright.training.memory_retry import in_halves
from modelwright.training.train import compute
from modelwright.types import Array, Columns, Example, Objective, rows_in

CHOSEN, REJECTED = "chosen", "rejected"
MEASURE = "preference accuracy"


def rewards(model: nn.Module, objective: Objective, columns: Columns) -> Array:
    """Rewards of the chosen and the rejected answer of every row, (rows, 2), NaN: no such answer.

    ``columns`` are of rows that fit the model, with what the reference gives them.
    """
    generator, device = torch.Generator(), next(model.parameters()).device

    def of(part: Columns) -> Array:
        batch = objective.collate(part, generator).to(device)
        found = cast(Any, objective).rewards(model, batch).float()
        known: Array = found.where(batch.targets["lengths"] > 0, torch.nan).cpu().numpy()
        return known

    model.eval()
    with torch.inference_mode(), compute(torch.float32, device):
        return np.concatenate([r for part in once(columns, BATCH) for r in in_halves(part, of)])


def right(found: Array) -> list[bool]:
    """Of each row of rewards (rows, 2) whether it is told rightly; see the module."""
    good, bad = found[:, 0], found[:, 1]
    paired = np.isfinite(found).all(1)
    alone = np.where(np.isfinite(good), good > 0, bad < 0)
    told: list[bool] = np.where(paired, good > bad, alone).tolist()
    return told


def accuracy(model: nn.Module, objective: Objective, columns: Columns) -> dict[str, float]:
    """The preference accuracy on all of some columns, by its name."""
    told = right(rewards(model, objective, columns))
    return {"preference_accuracy": sum(told) / len(told)}


def preferences(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Preference accuracy and margins on the test part, beside length and a linear model."""
    columns = open_shard(run.path / "data" / name / "test")
    preferred(run, name, "test", columns, fitted=fitted, result=result, say=say)


def preferred(
    run: Run,
    name: str,
    part: str,
    columns: Columns,
    *,
    fitted: Fitted,
    result: dict[str, Any],
    say: Say,
) -> None:
    """The same of any rows of a stage: of its test part, or of a file.

    Every row is written down as told rightly or not, so that two runs can be compared in pairs.

    Args:
        run: of the stage.
        name: of the stage.
        part: of its data, or a name of the file; what the reference gives is kept by it.
        columns: of all its rows; those longer than the context are left out, and counted.
        fitted: the model of the stage.
        result: takes the measures in.
        say: told of the progress, and of what is left out.
    """
    every, fits = rows_in(columns), len(rows_that_fit(fitted, columns))
    context = getattr(fitted.config, "context", 0)
    if not fits:
        raise ModelwrightError(
            f"{run.path}: {name}: no row of {part} fits the context of {context:,} tokens; give"
            " shorter rows, or train with a longer context"
        )
    if fits < every:
        say(
            f"evaluate: {name}: {every - fits:,} of {every:,} rows are longer than the context of"
            f" {context:,} tokens and are left out"
        )
    columns = referred(run, name, part, fitting(fitted, columns), fitted)
    found = rewards(fitted.model, fitted.objective, columns)
    say(f"evaluate: {name}: rewards of {len(found):,} held-out answers or pairs")
    rightly, asked = right(found), examples_of(fitted.codec, columns)
    told = {"ours": _share(rightly)}
    if run.recipe.evaluate.baselines:
        train = fitting(fitted, open_shard(run.path / "data" / name / "train"))
        for who, scores in _simple(examples_of(fitted.codec, train), asked).items():
            told[who] = _share(right(scores))
    lines = [_line(*pair) for pair in zip(asked, rightly, strict=True)]
    stage = name if part == "test" else part
    graded.write(run, stage, lines)
    result.setdefault("slices", []).extend(graded.slices(stage, fitted.task, lines))
    low, high = told["ours"].interval
    result["measures"].append(
        {
            "name": f"test {MEASURE}",
            "unit": "share",
            "better": "higher",
            "rows": [{"who": who, "value": of.value} for who, of in told.items()],
            "note": f"{len(found):,} held-out rows; 95 % interval of ours {low:.3f} to {high:.3f};"
            " chance is 0.5",
        }
    )
    margins = (found[:, 0] - found[:, 1])[np.isfinite(found).all(1)]
    if len(margins):
        result["measures"].append(_margin(margins))


def _line(example: Example, rightly: bool) -> dict[str, Any]:
    """A row that was told rightly or not, as ``graded`` keeps answers; its key is of all of it."""
    asked = "\n".join(turn.said for turn in example.given)
    better, worse = _texts(example)
    return {
        "key": key("\0".join((asked, better or "", worse or ""))),
        "grade": float(rightly),
        "right": rightly,
        "measure": MEASURE,
        "better": "higher",
        "kind": "",
        "length": len(asked),
        "question": graded.short(asked),
        "reference": graded.short(better or ""),
        "answer": graded.short(worse or ""),
    }


def _margin(margins: Array) -> dict[str, Any]:
    mean = Mean(margins.tolist())
    quarter, half, three = np.quantile(margins, (0.25, 0.5, 0.75)).tolist()
    return {
        "name": "test margin of rewards",
        "unit": "reward",
        "better": "higher",
        "rows": [{"who": "ours", "value": mean.value}],
        "note": "of the chosen answer over the rejected one; quartiles "
        f"{quarter:.3f}, {half:.3f} and {three:.3f}",
    }


def _share(told: Sequence[bool]) -> Accuracy:
    return Accuracy(sum(told), len(told))


def _simple(train: Sequence[Example], asked: Sequence[Example]) -> dict[str, Array]:
    """Rewards (rows, 2) by what needs no language model: length, and which words occur."""
    texts = [_texts(example) for example in asked]
    lengths = [[np.nan if t is None else float(len(t)) for t in pair] for pair in texts]
    found = np.array(lengths, dtype=np.float64)
    middle = np.nanmedian(found)
    simple = {"longer answer": found - middle}
    known = [(t, kind) for e in train for t, kind in zip(_texts(e), _KINDS, strict=True) if t]
    if len({kind for _, kind in known}) == len(_KINDS):
        linear = BagOfWords().fit([t for t, _ in known], [kind for _, kind in known])
        flat = [t or "" for pair in texts for t in pair]
        both = (linear.scores(flat, kind) for kind in _KINDS)
        lead = np.subtract(*map(np.array, both)).reshape(-1, 2)
        simple["linear, bag of words"] = np.where(np.isnan(found), np.nan, lead)
    return simple


_KINDS = (CHOSEN, REJECTED)


def _texts(example: Example) -> tuple[str | None, str | None]:
    """The text of the chosen and the rejected answer, None where there is none."""
    chosen = next((turn.text for turn in reversed(example.turns) if turn.learn), None)
    other = example.rejected
    return chosen, other.text if other is not None and other.learn else None
