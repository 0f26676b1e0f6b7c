"""The layout of published checkpoints, as ``transformers``, vLLM and llama.cpp's converter read it.

Weights, config and tokenizer are read back by the reader that everybody's checkpoints go through,
and the stored samples pass both models, tokenizer included; every layer's output is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.data.codecs import labelled_text
from modelwright.errors import ModelwrightError
from modelwright.exporting.subject import Options, Subject
from modelwright.hub.families import writer_of
from modelwright.hub.files import Published, find
from modelwright.hub.loading import load
from modelwright.hub.replay import TOLERANCES, Replayed, replay
from modelwright.hub.tokenizer import end_settings, files_of, read_codec
from modelwright.hub.writing import write as write_checkpoint

HELP = "as transformers, vLLM and llama.cpp's converter read it"


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
        files=files_of(subject.codec, getattr(subject.config, "context", None)),
    )


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Compare the written checkpoint with the trained model on the stored samples.

    Raises:
        ModelwrightError: tokens or outputs differ; names the sample, and the layer.
    """
    written = find(str(folder))
    _same_tokens(subject, written)
    loaded = load(written, dtype=torch.float32)
    names = [subject.name(i) for i in range(len(subject.batches))]

    def outputs(model: nn.Module, number: int) -> Sequence[Tensor]:
        batch = subject.batches[number]
        results = [subject.objective.loss(model, batch)]
        if hasattr(model, "new_cache"):
            results.append(model(**batch.inputs))
        return results

    tolerance = TOLERANCES[options.dtype or torch.float32]
    return replay(subject.model, loaded.model, names, outputs, tolerance)


def _same_tokens(subject: Subject, written: Published) -> None:
    """The written tokenizer must give the stored tokens again."""
    codec = cast(Any, subject.codec)
    inner = codec.text if isinstance(codec, labelled_text.Codec) else codec
    if not hasattr(inner, "layout"):
        return  # reads no text
    again = read_codec(written, inner.vocabulary)
    for number, example in enumerate(subject.examples):
        if isinstance(codec, labelled_text.Codec):
            text = example.given[-1].text
            one, other = inner.tokens(text), again.tokens(text)
        else:
            one, other = inner.layout(example.turns)[0], again.layout(example.turns)[0]
        if list(one) != list(other):
            pairs = zip([*one, None], [*other, None], strict=False)
            at = next(i for i, (a, b) in enumerate(pairs) if a != b)
            raise ModelwrightError(
                f"export: the written tokenizer differs: example {number + 1} of {subject.part}: "
                f"token {at + 1} is {other[at] if at < len(other) else 'missing'}, "
                f"{one[at] if at < len(one) else 'nothing'} is meant; nothing was exported"
            )
