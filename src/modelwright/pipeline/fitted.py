"""A trained model as it lies in a checkpoint: written by a stage, read by all who use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modelwright import checkpoint, runtime
from modelwright.data.codecs import load_codec
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.loading import Unfilled
from modelwright.models.lora import fold
from modelwright.models.model import ModelConfig, from_dict
from modelwright.models.quantized import laid_out
from modelwright.objectives import beside, make_objective
from modelwright.pipeline import adapters
from modelwright.pipeline.adapters import Adapted
from modelwright.pipeline.patience import chosen
from modelwright.pipeline.prepare import longest
from modelwright.recipe import Stage
from modelwright.runs import Run
from modelwright.tasks.task import Task, make_task
from modelwright.training.memory_retry import in_halves
from modelwright.training.train import compute
from modelwright.types import Array, Codec, Columns, Objective, rows_in, take

BATCH = 16  # examples measured at once
WEIGHTS = "weights.json"  # how packed matrices lie, in a checkpoint that has some


@dataclass
class Fitted:
    """A trained model as it lies in a checkpoint, with all that is needed to use it."""

    model: nn.Module
    config: ModelConfig
    codec: Codec
    task: Task
    objective: Objective
    path: Path
    step: int
    adapter: Adapted | None = None  # with the adapter live in ``model``, unless it was merged


@dataclass(frozen=True)
class TaskName:
    """A task as a checkpoint remembers it."""

    task: str
    options: dict[str, Any]
    objective: str
    objective_options: dict[str, Any]

    @classmethod
    def of(cls, stage: Stage) -> TaskName:
        """The task and objective of a recipe's stage."""
        objective = stage.objective or make_task(stage.task, stage.options).objective
        return cls(stage.task, stage.options, objective, stage.objective_options)


def load_fitted(path: Path, *, merged: bool = True) -> Fitted:
    """The model of a checkpoint, verified, in evaluation mode on the best device.

    An adapter is put on its base and, if ``merged``, into the weights: a plain model.
    """
    found = checkpoint.load(path, groups=["model"])
    try:
        config = from_dict(json.loads(found.documents["model.json"]))
        name = TaskName(**json.loads(found.documents["task.json"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptError(f"{path}: not a model's checkpoint ({error})") from error
    codec = load_codec(found.documents)
    adapter = None
    if WEIGHTS in found.documents:
        model = _packed(config, found)
    elif adapters.DOCUMENT in found.documents:
        model = config.build()
        adapter = adapters.read(found, model, config)
        if learned := len(getattr(model, "virtual", ())):
            shorter: Any = config  # what is left for texts
            config = replace(shorter, context=shorter.context - learned)
        if merged:
            fold(model)
            adapter = None
    else:
        model = config.build()
        load_parameters(model, found)
    task = make_task(name.task, name.options)
    task.knows(codec)
    objective = make_objective(name.objective, codec, name.objective_options)
    model.to(runtime.device()).eval()
    return Fitted(model, config, codec, task, objective, path, found.step, adapter)


def _packed(config: ModelConfig, found: checkpoint.Checkpoint) -> nn.Module:
    """A model whose matrices are kept in few bits; the others are never made."""
    with Unfilled():
        model = config.build()
    try:
        laid_out(model, json.loads(found.documents[WEIGHTS]))
        model.load_state_dict(found.tensors["model"], assign=True)
    except (KeyError, ValueError, TypeError, RuntimeError, ModelwrightError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptError(f"{found.path}: does not fit its {WEIGHTS} ({reason})") from error
    return model


def newest_checkpoint(run: Run, stage: str | None = None) -> Path:
    """The newest complete checkpoint of a stage, or of the last stage that has one."""
    for name in [stage] if stage else reversed(list(run.recipe.stages)):
        found = chosen(run.path / "checkpoints" / name)
        if found is not None:
            return found
    what = f"no trained stage {stage!r}" if stage else "nothing trained yet"
    raise ModelwrightError(f"{run.path}: {what}; run `modelwright run {run.path}`")


def mean_loss(fitted: Fitted, batches: Iterator[Columns]) -> tuple[float, int, int]:
    """Summed loss, items and bytes of some columns, without gradients."""
    total, items, spelled = 0.0, 0, 0
    generator = torch.Generator().manual_seed(0)
    device = next(fitted.model.parameters()).device

    def measured(columns: Columns) -> tuple[float, int, int]:
        batch = fitted.objective.collate(columns, generator).to(device)
        return float(fitted.objective.loss(fitted.model, batch)), batch.count, batch.bytes

    with torch.inference_mode(), compute(torch.float32, device):
        for columns in batches:
            for loss, count, length in in_halves(beside(fitted.objective, columns), measured):
                total, items, spelled = total + loss, items + count, spelled + length
    return total, items, spelled


def fitting(fitted: Fitted, columns: Columns) -> Columns:
    """The rows that the model's context holds; all of a stream."""
    fits = rows_that_fit(fitted, columns)
    whole = fitted.task.stream or len(fits) == rows_in(columns)
    return columns if whole else take(columns, fits)


def rows_that_fit(fitted: Fitted, columns: Columns) -> Array:
    """The numbers of the rows that the model's context holds, as in training."""
    context = getattr(fitted.config, "context", None)
    lengths = longest(columns, fitted.codec.ragged)
    if not context or lengths is None or getattr(fitted.codec, "any_length", False):
        return np.arange(rows_in(columns))
    return np.flatnonzero(lengths <= context + 1)


def load_parameters(model: nn.Module, found: checkpoint.Checkpoint) -> None:
    """Give the model the verified parameters of a checkpoint."""
    try:
        model.load_state_dict(found.tensors["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptError(f"{found.path}: does not fit its model.json ({reason})") from error
