"""The layout of published checkpoints, as ``transformers``, vLLM and llama.cpp's converter read it.

Weights, config, tokenizer and preparation of pictures are read back by the reader that everybody's
checkpoints go through, and samples pass both models from text or pictures' files on; every layer's
output is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.data.codecs import images, text_codec
from modelwright.errors import ModelwrightError
from modelwright.exporting.subject import Options, Subject, same_tokens
from modelwright.hub import adapted, sounds
from modelwright.hub.families import writer_of
from modelwright.hub.files import Published, find
from modelwright.hub.loading import load
from modelwright.hub.preprocessing import ImageSettings, preparation_of, read_settings
from modelwright.hub.replay import TOLERANCES, Replayed, replay
from modelwright.hub.tokenizer import end_settings, files_of, read_codec
from modelwright.hub.writing import write as write_checkpoint
from modelwright.types import Batch, stack

PREPARED = 1e-5  # numbers of a prepared picture may differ by, of their largest


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write weights, config.json and tokenizer.

    Raises:
        ModelwrightError: the family has no published layout, or an option is not this format's.
    """
    if options.quantization:
        raise ModelwrightError("--quantize: not for --to hub; --dtype narrows its weights")
    write_checkpoint(
        folder,
        subject.model,
        subject.config,
        writer_of(subject.config, subject.model_type),
        dtype=options.dtype,
        shard_bytes=options.shard_bytes,
        settings={**end_settings(subject.codec), **subject.settings},
        files={
            **files_of(subject.codec, getattr(subject.config, "context", None)),
            **preparation_of(subject.codec),
            **sounds.files_of(subject.codec),
        },
    )


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Compare the written checkpoint with the trained model on the stored samples.

    Raises:
        ModelwrightError: tokens or outputs differ; names the sample, and the layer.
    """
    written = find(str(folder))
    if subject.model_type in adapted.model_types:
        written = adapted.through_adapter(written)
    _same_tokens(subject, written)
    again = _prepared(subject, written)
    loaded = load(written, dtype=torch.float32)
    names = [subject.name(i) for i in range(len(subject.batches))]

    def outputs(model: nn.Module, number: int) -> Sequence[Tensor]:
        batch = (again if model is loaded.model else subject.batches)[number]
        results = [subject.objective.loss(model, batch)]
        if hasattr(model, "new_cache"):
            results.append(model(**batch.inputs))
        return results

    tolerance = TOLERANCES[options.dtype or torch.float32]
    return replay(subject.model, loaded.model, names, outputs, tolerance)


def _prepared(subject: Subject, written: Published) -> Sequence[Batch]:
    """The batches as the written checkpoint makes them of the pictures' files; others as they are.

    Raises:
        ModelwrightError: its preparation gives other numbers.
    """
    codec = subject.codec
    if not isinstance(codec, images.Codec):
        return subject.batches
    settings = read_settings(written.folder)
    if not isinstance(settings, ImageSettings):
        raise ModelwrightError("export: no preprocessor_config.json of pictures was written")
    theirs = images.Codec(codec.labels, settings)
    made = []
    for number, (example, batch) in enumerate(zip(subject.examples, subject.batches, strict=True)):
        found = theirs.tensors(stack([theirs.encode(example)], theirs.ragged))["features"]
        meant = batch.inputs["features"]
        same = found.shape == meant.shape
        apart = float((found - meant).abs().max()) if same else float("inf")
        if not apart <= PREPARED * max(1.0, float(meant.abs().max())):
            raise ModelwrightError(
                f"export: preprocessor_config.json prepares {subject.name(number)} otherwise:"
                f" numbers differ by up to {apart:.2g}, {PREPARED:.0e} is allowed; nothing was"
                " exported"
            )
        made.append(dataclasses.replace(batch, inputs={**batch.inputs, "features": found}))
    return made


def _same_tokens(subject: Subject, written: Published) -> None:
    """The written tokenizer must give the stored tokens again."""
    codec: Any = subject.codec
    inner = text_codec(codec)
    if inner is None:
        return
    again = read_codec(written, inner.vocabulary)
    for number, example in enumerate(subject.examples):
        if inner is codec:
            one, other = inner.layout(example.turns)[0], again.layout(example.turns)[0]
        else:
            text = example.given[-1].text
            one, other = inner.tokens(text), again.tokens(text)
        same_tokens(other, one, subject.example_name(number))
