"""The teacher of a stage that is distilled: found, hashed, checked, and given to its objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from modelwright.checkpoint.layout import MANIFEST
from modelwright.data.codecs import save_codec
from modelwright.data.fetching import file_sha256
from modelwright.errors import ModelwrightError
from modelwright.hub.files import Published, find, is_published
from modelwright.hub.loading import load
from modelwright.hub.tokenizer import read_codec
from modelwright.objectives import objective_options
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.places import is_run
from modelwright.runs import Run
from modelwright.tasks.task import make_task
from modelwright.types import Codec, Objective


class Teaching(Protocol):
    """What an objective that learns from a teacher has as ``teaching``."""

    source: str
    model: nn.Module | None


def pin(run: Run, name: str) -> dict[str, str]:
    """What the teacher of a stage is today, also written into the manifest; empty without one.

    Raises:
        ModelwrightError: there is no such teacher.
    """
    stage = run.recipe.stages[name]
    objective = stage.objective or make_task(stage.task, stage.options).objective
    source = objective_options(objective, stage.objective_options).get("teacher")
    kept = run.manifest.get("teachers", {})
    found = {} if source is None else _hashes(str(source))
    if kept.get(name, {}) != found:
        run.manifest["teachers"] = {**kept, name: found}
        run.save_manifest()
    return found


def teach(run: Run, name: str, objective: Objective, codec: Codec, device: torch.device) -> None:
    """Give an objective its teacher's model, frozen; one without a teacher stays as it is.

    Raises:
        ModelwrightError: the teacher reads or answers otherwise than the student.
    """
    teaching: Teaching | None = getattr(objective, "teaching", None)
    if teaching is None:
        return
    where = f"{name}.objective_options.teacher: {teaching.source}"
    found = _place(teaching.source)
    if isinstance(found, Published):
        model = load(found, dtype=torch.float32).model
        _require_alike(where, codec, found, model)
    else:
        fitted = load_fitted(found)
        if save_codec(fitted.codec) != save_codec(codec):
            raise ModelwrightError(
                f"{where} was trained with another codec than {run.path}: its numbers mean other "
                "tokens or labels; train both with one tokenizer and one set of labels"
            )
        model = fitted.model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    teaching.model = model.to(device).eval()


def _place(source: str) -> Path | Published:
    if is_run(source):
        return newest_checkpoint(Run.open(Path(source)))
    if is_published(source):
        return find(source)
    raise ModelwrightError(
        f"teacher: {source!r} is neither a run nor a published checkpoint; give the folder of a "
        "run, or hub:OWNER/NAME"
    )


def _hashes(source: str) -> dict[str, str]:
    found = _place(source)
    if isinstance(found, Published):
        return found.hashes()
    return {"checkpoint": file_sha256(found / MANIFEST)}  # which states those of all other files


def _require_alike(where: str, codec: Codec, found: Published, model: nn.Module) -> None:
    """Whether a published model's numbers mean the same tokens, and the same labels."""
    mine: Any = codec
    text = getattr(mine, "text", mine)
    vocabulary = int(cast(Any, model).config.vocabulary) if hasattr(text, "vocabulary") else 0
    theirs = read_codec(found, vocabulary)
    alike = vocabulary == text.vocabulary and list(text._spelling) == list(theirs._spelling)
    if hasattr(mine, "start"):  # of targets, which both decoders must begin with
        alike = alike and mine.start == getattr(cast(Any, model).config, "start", None)
    if alike and hasattr(mine, "labels"):
        named = {int(k): str(v) for k, v in (found.config.get("id2label") or {}).items()}
        alike = [named[i] for i in sorted(named)] == list(mine.labels)
    if not alike:
        raise ModelwrightError(
            f"{where} has another tokenizer, or other labels; begin with model.from and the same "
            "tokenizer, or choose a teacher that has this one"
        )
