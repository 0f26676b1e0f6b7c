"""A trained model with fewer bits a weight: calibrated on its own data, its loss compared, kept.

What is written is a checkpoint like any other, beside those of the run, with the document
``weights.json`` for how its matrices lie; `pipeline.fitted.load_fitted` reads it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import nn

from modelwright import checkpoint
from modelwright.checkpoint.layout import COMPLETE
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.models import quantized as packed_models
from modelwright.pipeline import adapters
from modelwright.pipeline.fitted import (
    WEIGHTS,
    Fitted,
    load_fitted,
    mean_loss,
    newest_checkpoint,
)
from modelwright.pipeline.held_out import batches
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run

CALIBRATION = 8  # batches of the train part that say which inputs are large
_PASSED = ("state.json", adapters.DOCUMENT)  # of training, or true no more once merged
MEASURED = 32  # batches of the validation part that say what the fewer bits cost


@dataclass(frozen=True)
class Quantized:
    """What fewer bits a weight cost.

    Attributes:
        path: the checkpoint that was written.
        kind: "int4", "int8" or "bfloat16".
        bytes_before: of the weights as they were trained.
        bytes_after: of the weights as they are kept now.
        loss_before: mean loss on held-out examples, in nats; None where nothing is held out.
        loss_after: the same with fewer bits.
    """

    path: Path
    kind: str
    bytes_before: int
    bytes_after: int
    loss_before: float | None
    loss_after: float | None


def quantized(run: Run, kind: str, say: Say, stage: str | None = None) -> Path:
    """The checkpoint of the run's newest model with weights of ``kind``: kept, or made now."""
    source = newest_checkpoint(run, stage)
    path = _place(run, kind, source)
    if _mark(path) == (source / COMPLETE).read_text(encoding="utf-8"):
        return path
    return quantize(run, kind, say, stage).path


def quantize(run: Run, kind: str, say: Say, stage: str | None = None) -> Quantized:
    """Write the newest model of a run with weights of ``kind``.

    int4 chooses its scales by the mean squares of each matrix's inputs on some batches of the
    train part.

    Raises:
        ModelwrightError: nothing is trained, or its matrices cannot be packed.
    """
    packed_models.known(kind)
    source = newest_checkpoint(run, stage)
    fitted = load_fitted(source)
    if hasattr(fitted.model, "virtual"):
        raise ModelwrightError(
            f"{source}: learned prompts stand before a base as it is; quantize the base's own run"
        )
    fitted.model.cpu()
    before = _bytes(fitted.model)
    say(f"quantize: reading {CALIBRATION} batches of the train part")
    with packed_models.observed(fitted.model) as importance:
        _loss(run, fitted, "train", CALIBRATION)
    part = "validation" if (run.path / "data" / source.parent.name / "validation").exists() else ""
    loss = _loss(run, fitted, part, MEASURED) if part else None
    say(f"quantize: packing {before / 1e6:,.0f} MB of weights as {kind}")
    packed_models.quantize(fitted.model, kind, importance)
    path = _write(run, fitted, kind, source)
    after = _loss(run, fitted, part, MEASURED) if part else None
    return Quantized(path, kind, before, _bytes(fitted.model), loss, after)


def _place(run: Run, kind: str, source: Path) -> Path:
    return run.path / "quantized" / kind / source.parent.name / source.name


def _mark(path: Path) -> str | None:
    """The seal of the checkpoint that this one was made of."""
    try:
        return str(json.loads((path / WEIGHTS).read_bytes())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(run: Run, fitted: Fitted, kind: str, source: Path) -> Path:
    place = _place(run, kind, source)
    shutil.rmtree(place, ignore_errors=True)  # of another model, or unfinished
    seal = (source / COMPLETE).read_text(encoding="utf-8")
    stored = {**packed_models.layout(fitted.model), "source": seal}
    found = checkpoint.load(source, groups=[]).documents
    documents = {n: c for n, c in found.items() if n not in _PASSED}
    documents[WEIGHTS] = json.dumps(stored).encode()
    tensors = {"model": fitted.model.state_dict()}
    return checkpoint.save(place.parent, fitted.step, tensors, documents)


def _loss(run: Run, fitted: Fitted, part: str, count: int) -> float | None:
    """The mean loss over some batches of a part."""
    columns = open_shard(run.path / "data" / fitted.path.parent.name / part)
    total, items, _ = mean_loss(fitted, islice(batches(fitted, columns), count))
    return total / items if items else None


def _bytes(model: nn.Module) -> int:
    """Of all that the model keeps, a shared tensor counted once."""
    held = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.nbytes for t in held.values())
