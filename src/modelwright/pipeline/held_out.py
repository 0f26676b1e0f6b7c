"""What a trained stage costs on a whole held-out part, in the same units for every recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator

from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import (
    BATCH,
    Fitted,
    fitting,
    load_fitted,
    mean_loss,
    newest_checkpoint,
)
from modelwright.pipeline.references import referred
from modelwright.runs import Run
from modelwright.training.examples import once, windows_once
from modelwright.types import Columns

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
    columns = referred(run, stage, part, fitting(fitted, open_shard(folder)), fitted)
    total, items, spelled = mean_loss(fitted, batches(fitted, columns))
    if not items:
        raise ModelwrightError(f"{folder}: nothing in it can be measured; raise model.context")
    found = {"loss": total / items}
    if spelled:
        found["bits_per_byte"] = total / spelled / math.log(2)
    return found | answerer_of(fitted).held_out(columns)


def batches(fitted: Fitted, columns: Columns) -> Iterator[Columns]:
    """A part in the batches that its loss is measured in; what does not fit is left out."""
    context = getattr(fitted.config, "context", None)
    if fitted.task.stream and context:
        return windows_once(columns, BATCH, context)
    return once(fitting(fitted, columns), BATCH)
