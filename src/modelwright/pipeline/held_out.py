"""What a trained stage costs on a whole held-out part, in the same units for every recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import Fitted, load_fitted, mean_loss, newest_checkpoint
from modelwright.pipeline.measure import BATCH, predictions
from modelwright.pipeline.prepare import longest
from modelwright.runs import Run
from modelwright.training.examples import once, windows_once
from modelwright.types import Columns, take

LOWER = ("loss", "bits_per_byte")  # lower is better; of all others, higher is


def held_out(run: Run, stage: str, part: str) -> dict[str, float]:
    """The newest model of a stage on all of ``part``, which must be there.

    Returns:
        ``loss``, the mean in nats over all items; ``bits_per_byte`` where the targets are text;
        ``accuracy`` where they are labels.

    Raises:
        ModelwrightError: The run has no such part, or nothing trained.
    """
    folder = run.path / "data" / stage / part
    if not folder.exists():
        raise ModelwrightError(
            f"{run.path}: the recipe holds nothing out as {part}; give data.split.{part} a share"
        )
    fitted = load_fitted(newest_checkpoint(run, stage))
    columns = open_shard(folder)
    total, items, spelled = mean_loss(fitted, _batches(fitted, columns))
    if not items:
        raise ModelwrightError(f"{folder}: nothing in it can be measured; raise model.context")
    found = {"loss": total / items}
    if spelled:
        found["bits_per_byte"] = total / spelled / math.log(2)
    if "label" in columns:
        labels = cast(Any, fitted.codec).labels
        right = [labels[int(i)] for i in np.asarray(columns["label"])]
        same = [a == b for a, b in zip(right, predictions(fitted, columns), strict=True)]
        found["accuracy"] = sum(same) / len(same)
    return found


def _batches(fitted: Fitted, columns: Columns) -> Iterator[Columns]:
    context = getattr(fitted.config, "context", None)
    if fitted.task.stream and context:
        return windows_once(columns, BATCH, context)
    lengths = longest(columns, fitted.codec.ragged)
    if context and lengths is not None:  # as in training: what does not fit is left out
        columns = take(columns, np.flatnonzero(lengths <= context + 1))
    return once(columns, BATCH)
