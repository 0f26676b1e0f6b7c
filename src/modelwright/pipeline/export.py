"""A trained model for other programs, proved equal before it gets its name.

The files are written beside the place they are for, read back as their users read them, and
stored samples go through both models, preprocessing included. Only then is the folder renamed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from modelwright import checkpoint
from modelwright.data.fetching import file_sha256
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.exporting import format_named
from modelwright.exporting.subject import Options, Subject
from modelwright.files import make_folder, rename, write_file
from modelwright.hub.card import render
from modelwright.hub.files import HUB
from modelwright.hub.peft_files import Tuned
from modelwright.hub.replay import Replayed
from modelwright.models.lora import plain
from modelwright.pipeline.adapters import base_model
from modelwright.pipeline.carded import card_of
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint, rows_that_fit
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.raw_samples import as_kept
from modelwright.runs import Run
from modelwright.training.examples import once, windows_once
from modelwright.types import Columns, rows_in, take

SAMPLES = 4  # stored examples that are replayed
WINDOW = 256  # tokens of a replayed window at most


def export(
    run: Run,
    out: Path,
    say: Say,
    *,
    to: str,
    stage: str | None = None,
    options: Options | None = None,
    license: str = "",
) -> Replayed:
    """Write the newest model of a run in a format of other programs.

    Args:
        run: with a trained stage.
        out: a folder that does not exist yet.
        say: takes lines of progress.
        to: a format, a module of ``modelwright.exporting``.
        stage: "train" or "tune"; left out: the last that is trained.
        options: what the user chose of the format.
        license: of the weights, for the card.

    Raises:
        ModelwrightError: ``out`` exists, this format cannot hold this model, or the written model
            answers differently; nothing is left of it then.
    """
    if out.exists():
        raise ModelwrightError(f"{out}: exists; give a folder that is not there yet")
    options = options or Options()
    form = format_named(to)
    fitted = load_fitted(newest_checkpoint(run, stage))
    subject = subject_of(run, fitted)
    if hasattr(fitted.model, "virtual") and not getattr(form, "ADAPTER", False):
        raise ModelwrightError(
            f"--to {to}: learned prompts are no part of the weights, which this format writes; "
            "export them with --to peft"
        )
    if getattr(form, "ADAPTER", False):
        subject = replace(subject, tuned=tuned_of(fitted.path))
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    try:
        say(f"export: writing {to}")
        form.write(part, subject, options)
        say(f"export: replaying {len(subject.batches)} samples of {subject.part}")
        proof = form.check(part, subject, options)
        files = sorted(p for p in part.rglob("*") if p.is_file())
        hashes = {str(p.relative_to(part)): file_sha256(p) for p in files}
        card = card_of(run, fitted, hashes, proof, license=license)
        usage = getattr(form, "usage", None)
        library = getattr(form, "LIBRARY", card.library)
        card = replace(card, usage=usage(subject) if usage else "", library=library)
        write_file(part / "README.md", [render(card).encode()])
        rename(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return proof


def tuned_of(path: Path) -> Tuned | None:
    """The adapter of a checkpoint apart from its base; None where the checkpoint has none."""
    live = load_fitted(path, merged=False)
    if live.adapter is None:
        return None
    live.model.to("cpu")
    tensors = {n: t.clone() for n, t in live.adapter.tensors.items()}
    named = live.adapter.base.get("source")
    rounded = live.adapter.adapter.quantize is not None
    found = checkpoint.load(path, groups=["model"]) if rounded else None
    return Tuned(
        adapter=live.adapter.adapter,
        tensors=tensors,
        base=plain(live.model) if found is None else base_model(found, live.config),
        source=str(named).removeprefix(HUB).partition("@")[0] if named else None,
        revision=live.adapter.base.get("revision"),
    )


def subject_of(run: Run, fitted: Fitted) -> Subject:
    """A trained model and the first examples of its held-out data, as stored and as it reads them.

    Raises:
        ModelwrightError: the prepared data are gone.
    """
    stage = fitted.path.parent.name
    for part in ("test", "validation", "train"):
        folder = run.path / "data" / stage / part
        if folder.exists():
            break
    else:
        raise ModelwrightError(
            f"{run.path}: its prepared data are gone, so nothing can be replayed; "
            f"run `modelwright prepare {run.path}`"
        )
    columns = open_shard(folder)
    all_rows = np.arange(rows_in(columns))
    fits = all_rows if fitted.task.stream else rows_that_fit(fitted, columns)
    if not len(fits):
        raise ModelwrightError(
            f"{folder}: every example is longer than the model's context, so nothing can be "
            "replayed; train with a larger model.context"
        )
    few = take(columns, fits[:SAMPLES])
    codec = cast(Any, fitted.codec)
    examples = [
        codec.example({k: np.asarray(c[i]) for k, c in few.items()}) for i in range(rows_in(few))
    ]
    examples = as_kept(run, stage, part, examples)
    context = getattr(fitted.config, "context", None)
    if fitted.task.stream and context:
        every = windows_once(columns, 1, min(WINDOW, int(context)))
        parts: list[Columns] = [w for w, _ in zip(every, range(SAMPLES), strict=False)]
    else:
        parts = list(once(few, 1))
    generator = torch.Generator().manual_seed(0)
    fitted.model.to("cpu")
    return Subject(
        model=fitted.model,
        config=fitted.config,
        codec=fitted.codec,
        objective=fitted.objective,
        model_type=(run.manifest.get("published") or {}).get("model_type"),
        examples=tuple(examples),
        batches=tuple(fitted.objective.collate(p, generator) for p in parts),
        part=f"{stage}/{part}",
    )
