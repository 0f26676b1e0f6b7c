"""What the reference of a preference training gives the answers, computed once and kept.

The reference is the model that the stage begins with. Its log-probabilities lie under
``references/STAGE`` of the run, named by a hash of that model, of the answers and of how it was
computed: a training that goes on finds them, or computes the same again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from modelwright.checkpoint.layout import MANIFEST
from modelwright.data.fetching import file_sha256
from modelwright.errors import ModelwrightError
from modelwright.files import make_folder, rename
from modelwright.objectives.preference import of_reference
from modelwright.pipeline.fitted import BATCH, Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import load_published
from modelwright.runs import Run, fingerprint
from modelwright.training.compiled import uncompiled
from modelwright.training.examples import once
from modelwright.training.memory_retry import in_halves
from modelwright.training.train import compute
from modelwright.types import Array, Columns, Objective, ragged_column, rows_in

FOLDER = "references"


def refers(objective: Objective) -> bool:
    """Whether an objective compares with what a reference makes of the answers."""
    return bool(getattr(objective, "refers", False))


def referred(
    run: Run,
    name: str,
    part: str,
    columns: Columns,
    fitted: Fitted,
    *,
    say: Say | None = None,
    precision: torch.dtype = torch.float32,
) -> Columns:
    """Columns of a stage's part with what its reference gives their answers, where that is asked.

    Args:
        run: of the stage.
        name: of the stage.
        part: of its data.
        columns: of the part, without rows that do not fit the model.
        fitted: codec, task and objective of the stage.
        say: takes a line when something is computed.
        precision: of the products.

    Raises:
        ModelwrightError: the stage begins with random weights, which prefer nothing.
    """
    if not refers(fitted.objective) or not rows_in(columns):
        return columns
    mark = fingerprint(_begins_with(run, name), _content(columns), str(precision))[:16]
    path = run.path / FOLDER / name / f"{part}-{mark}.npy"
    if not path.is_file():
        if say is not None:
            count = rows_in(columns)
            say(f"{name}: what the reference gives the answers of {count:,} rows of {part}")
        _write(path, log_probabilities(_base(run, name, fitted), columns, precision))
    return of_reference(columns, np.load(path, allow_pickle=False))


def log_probabilities(base: Fitted, columns: Columns, precision: torch.dtype) -> Array:
    """Log p of the chosen and the rejected answer of every row, (rows, 2) float32, in nats."""
    generator, device = torch.Generator(), next(base.model.parameters()).device
    objective = cast(Any, base.objective)

    def of(part: Columns) -> Array:
        batch = objective.collate(part, generator).to(device)
        found: Array = objective.answers(base.model, batch).ours.float().cpu().numpy()
        return found

    parts: list[Array] = []
    base.model.eval()
    with torch.inference_mode(), uncompiled(), compute(precision, device):
        for part in once(columns, BATCH):
            parts += in_halves(part, of)
    return np.concatenate(parts)


def _begins_with(run: Run, name: str) -> Any:
    """The model that a stage begins with, by its hashes."""
    if name != next(iter(run.recipe.stages)):
        return file_sha256(newest_checkpoint(run, "train") / MANIFEST)
    published: Any = run.manifest.get("published")
    if published is None:
        raise ModelwrightError(
            f"{name}.task: answers are compared with those of the model that the training begins"
            " with, and this one begins with random weights; learn the answers first, in a train"
            " part with objective next_token, or give model.from"
        )
    return published["files"], run.recipe.seed


def _base(run: Run, name: str, fitted: Fitted) -> Fitted:
    if name != next(iter(run.recipe.stages)):
        found = load_fitted(newest_checkpoint(run, "train"))
    else:
        found = load_published(run, fitted)
    found.objective = fitted.objective
    return found


def _content(columns: Columns) -> str:
    """SHA-256 of the answers: those of another file, or another context, are others."""
    found = hashlib.sha256()
    for name in ("tokens", "learn", "rejected", "rejected_learn"):
        column = ragged_column(columns, name)
        for values in (column.values, column.offsets):
            found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def _write(path: Path, values: Array) -> None:
    make_folder(path.parent)
    temporary = path.with_suffix(f".{os.getpid()}.part")  # every process may compute the same
    with temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    rename(temporary, path)
