"""A trained model as a published checkpoint, proved equal before it gets its name.

The files are written beside the place they are for, read back by the reader that everybody uses,
and stored samples go through both models, tokenizer included. Only then is the folder renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.data.codecs import labelled_text
from modelwright.data.fetching import file_sha256
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.files import make_folder, rename, write_file
from modelwright.hub.card import render
from modelwright.hub.families import writer_of
from modelwright.hub.files import Published, find
from modelwright.hub.loading import load
from modelwright.hub.replay import TOLERANCES, Replayed, replay
from modelwright.hub.tokenizer import end_settings, files_of, read_codec
from modelwright.hub.writing import SHARD, write
from modelwright.pipeline.carded import card_of
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.prepare import Say
from modelwright.run import Run
from modelwright.training.examples import once, windows_once
from modelwright.types import Batch, Columns, Example, rows_in, take

SAMPLES = 4  # stored examples that are replayed
WINDOW = 256  # tokens of a replayed window at most


def export_hub(
    run: Run,
    out: Path,
    say: Say,
    *,
    stage: str | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD,
    license: str = "",
) -> Replayed:
    """Write the newest model of a run as a checkpoint of the hub's layout.

    Args:
        run: with a trained stage.
        out: a folder that does not exist yet.
        say: takes lines of progress.
        stage: "train" or "tune"; left out: the last that is trained.
        dtype: of the weights; None: as they are, float32.
        shard_bytes: of a weight file at most.
        license: of the weights, for the card.

    Raises:
        ModelwrightError: ``out`` exists, this family has no published layout, or the written
            model answers differently; nothing is left of it then.
    """
    if out.exists():
        raise ModelwrightError(f"{out}: exists; give a folder that is not there yet")
    fitted = load_fitted(newest_checkpoint(run, stage))
    stage = fitted.path.parent.name
    fitted.model.to("cpu")
    came = run.manifest.get("published") or {}
    family = writer_of(fitted.config, came.get("model_type"))
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    try:
        say(f"export: writing {family.__name__.rpartition('.')[2]} files")  # type: ignore[attr-defined]
        write(
            part,
            fitted.model,
            fitted.config,
            family,
            dtype=dtype,
            shard_bytes=shard_bytes,
            settings=_settings(fitted),
            files=files_of(fitted.codec, getattr(fitted.config, "context", None)),
        )
        say(f"export: replaying stored samples of {stage}")
        proof = check(run, stage, fitted, find(str(part)), dtype)
        hashes = {p.name: file_sha256(p) for p in sorted(part.iterdir())}
        card = card_of(run, fitted, hashes, proof, license=license)
        write_file(part / "README.md", [render(card).encode()])
        rename(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return proof


def check(
    run: Run, stage: str, fitted: Fitted, written: Published, dtype: torch.dtype | None
) -> Replayed:
    """Compare a written checkpoint with the trained model on stored samples.

    Raises:
        ModelwrightError: tokens or outputs differ; names the sample, and the layer.
    """
    part, examples, batches = _samples(run, stage, fitted)
    names = [f"sample {i + 1} of {stage}/{part}" for i in range(len(batches))]
    _same_tokens(fitted, written, [f"example {i + 1} of {part}" for i in range(SAMPLES)], examples)
    loaded = load(written, dtype=torch.float32)

    def outputs(model: nn.Module, number: int) -> Sequence[Tensor]:
        batch = batches[number]
        results = [fitted.objective.loss(model, batch)]
        if hasattr(model, "new_cache"):
            results.append(model(**batch.inputs))
        return results

    return replay(fitted.model, loaded.model, names, outputs, TOLERANCES[dtype or torch.float32])


def _samples(run: Run, stage: str, fitted: Fitted) -> tuple[str, list[Example], list[Batch]]:
    """The first examples of the held-out data, as they are stored and as the model reads them."""
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
    few = take(columns, np.arange(min(SAMPLES, rows_in(columns))))
    codec = cast(Any, fitted.codec)
    examples = [
        codec.example({k: np.asarray(c[i]) for k, c in few.items()}) for i in range(rows_in(few))
    ]
    context = getattr(fitted.config, "context", None)
    if fitted.task.stream and context:
        every = windows_once(columns, 1, min(WINDOW, int(context)))
        parts: list[Columns] = [w for w, _ in zip(every, range(SAMPLES), strict=False)]
    else:
        parts = list(once(few, 1))
    generator = torch.Generator().manual_seed(0)
    return part, examples, [fitted.objective.collate(p, generator) for p in parts]


def _same_tokens(
    fitted: Fitted, written: Published, names: Sequence[str], examples: Sequence[Example]
) -> None:
    """The written tokenizer must give the stored tokens again."""
    codec = cast(Any, fitted.codec)
    inner = codec.text if isinstance(codec, labelled_text.Codec) else codec
    if not hasattr(inner, "layout"):
        return  # reads no text
    again = read_codec(written, inner.vocabulary)
    for name, example in zip(names, examples, strict=False):
        if isinstance(codec, labelled_text.Codec):
            text = example.given[-1].text
            one, other = inner.tokens(text), again.tokens(text)
        else:
            one, other = inner.layout(example.turns)[0], again.layout(example.turns)[0]
        if list(one) != list(other):
            pairs = zip([*one, None], [*other, None], strict=False)
            at = next(i for i, (a, b) in enumerate(pairs) if a != b)
            raise ModelwrightError(
                f"export: the written tokenizer differs: {name}: token {at + 1} is "
                f"{other[at] if at < len(other) else 'missing'}, "
                f"{one[at] if at < len(one) else 'nothing'} is meant; nothing was exported"
            )


def _settings(fitted: Fitted) -> Mapping[str, Any]:
    """Fields of config.json beside the family's own: where texts end, and the labels' names."""
    found: dict[str, Any] = dict(end_settings(fitted.codec))
    labels = getattr(fitted.codec, "labels", None)
    if labels is not None:
        found["id2label"] = {str(i): name for i, name in enumerate(labels)}
        found["label2id"] = {name: i for i, name in enumerate(labels)}
    return found
