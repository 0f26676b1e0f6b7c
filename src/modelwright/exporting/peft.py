"""The adapter alone in PEFT's format, for those who have its base.

It is read back, merged into the base, and stored samples pass that and the trained model: every
layer's output is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.exporting.subject import Options, Subject
from modelwright.hub.families import writer_of
from modelwright.hub.peft_files import Tuned, merge_adapter, write_adapter
from modelwright.hub.replay import TOLERANCES, Replayed, replay

LIBRARY = "peft"
ADAPTER = True  # reads the adapter apart from its base


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write adapter_config.json and adapter_model.safetensors.

    Raises:
        ModelwrightError: the run has no adapter, the base has no published layout, or the format
            cannot hold the adapter.
    """
    if options.quantization or options.dtype:
        raise ModelwrightError("--to peft: an adapter keeps float32; leave out --dtype, --quantize")
    layout = writer_of(subject.config, subject.model_type).layout(subject.config)
    causal = hasattr(subject.model, "new_cache")
    write_adapter(folder, _tuned(subject), layout, causal=causal)


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Merge the written adapter into the base and compare it with the trained model.

    Raises:
        ModelwrightError: an output differs; names the sample, and the layer.
    """
    del options
    base = _tuned(subject).base
    layout = writer_of(subject.config, subject.model_type).layout(subject.config)
    merge_adapter(folder, base, layout)

    def outputs(model: nn.Module, number: int) -> Sequence[Tensor]:
        return [subject.objective.loss(model, subject.batches[number])]

    names = [subject.name(i) for i in range(len(subject.batches))]
    return replay(subject.model, base, names, outputs, TOLERANCES[torch.float32])


def usage(subject: Subject) -> str:
    """How to load it."""
    tuned = _tuned(subject)
    source = tuned.source or "FOLDER_OF_THE_BASE"
    said = (
        ""
        if tuned.source
        else (
            "The base is a model of the same run, which `modelwright export RUN FOLDER_OF_THE_BASE "
            "--to hub --stage train` writes.\n\n"
        )
    )
    kind = "AutoModelForCausalLM" if hasattr(subject.model, "new_cache") else "AutoModel..."
    return (
        f"{said}```python\nfrom peft import PeftModel\nfrom transformers import {kind}\n\n"
        f'base = {kind}.from_pretrained("{source}")\n'
        'model = PeftModel.from_pretrained(base, "FOLDER_OF_THIS_ADAPTER")\n```\n'
    )


def _tuned(subject: Subject) -> Tuned:
    if subject.tuned is None:
        raise ModelwrightError(
            "--to peft: this stage was not trained with adapters; write tune.adapter in the recipe,"
            " or export the whole model with --to hub"
        )
    return subject.tuned
