"""One side of one comparison: a model of ours or the same one of transformers, and its loss.

As a script it times forward and backward passes and prints one line of JSON:
``python -m benchmarks.models.contender ours "GPT-2 124M" [--quick] [--compiled] [--float32]``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models.shapes import Shape, shapes
from benchmarks.training.clock import Clock
from modelwright.hub.families import family_of
from modelwright.hub.writing import write
from modelwright.models.model import config_class, of_named_size
from modelwright.training.compiled import compile_regions

STEPS, WARMUP = 5, 2
IGNORED = -100  # of targets, in transformers

Batch = dict[str, Tensor]
Loss = Callable[[Batch], Tensor]


def ours(shape: Shape) -> tuple[nn.Module, Any]:
    """Our model with fresh weights of seed 0, and its config."""
    cls = config_class(shape.family)
    config = cls(**of_named_size(cls, shape.fields))
    torch.manual_seed(0)
    return config.build().train(), config


def theirs(shape: Shape, model: nn.Module, config: Any) -> Any:
    """The same weights as a model of transformers, with PyTorch's fused attention."""
    import transformers  # noqa: PLC0415 - ours is measured without it

    attention = {} if shape.family == "resnet" else {"attn_implementation": "sdpa"}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), model, config, family_of(shape.hub, "bench"))
        cls = getattr(transformers, shape.theirs)
        return cls.from_pretrained(folder, dtype=torch.float32, **attention).train()


def batches(shape: Shape, config: Any, count: int) -> list[Batch]:
    """Batches by seed: tokens that partly follow from each other, or images, and labels."""
    from benchmarks.training.data import stream  # noqa: PLC0415

    found = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        if shape.length:
            number = shape.rows * shape.length
            # From 1 on: transformers gives BERT's token 0, which pads, no gradient.
            tokens = torch.from_numpy(stream(config.vocabulary - 1, number, seed) + 1)
            batch = {"tokens": tokens.view(shape.rows, shape.length)}
        else:
            size = (shape.rows, *config.image, config.channels)
            batch = {"features": torch.randn(size, generator=generator)}
        if not shape.fused:
            batch["labels"] = torch.randint(config.classes, (shape.rows,), generator=generator)
        found.append(batch)
    return found


def our_loss(shape: Shape, model: Any) -> Loss:
    """Mean cross-entropy of ours: the next token by the fused head, or the class."""

    def next_token(batch: Batch) -> Tensor:
        tokens = batch["tokens"]
        hidden = model.hidden(tokens)[:, :-1].flatten(0, 1)
        total: Tensor = model.negative_log_likelihood(hidden, tokens[:, 1:].flatten())
        return total / len(hidden)

    def classes(batch: Batch) -> Tensor:
        read = {k: v for k, v in batch.items() if k != "labels"}
        return F.cross_entropy(model(**read).float(), batch["labels"])

    return next_token if shape.fused else classes


def their_loss(shape: Shape, model: Any) -> Loss:
    """Mean cross-entropy of theirs, by the loss that the model itself has."""

    def loss(batch: Batch) -> Tensor:
        if shape.length:
            tokens = batch["tokens"]
            labels = tokens if shape.fused else batch["labels"]
            made = model(input_ids=tokens, labels=labels)
        else:
            pixels = batch["features"].permute(0, 3, 1, 2)  # channels last, as ours has them
            made = model(pixel_values=pixels, labels=batch["labels"])
        found: Tensor = made.loss
        return found

    return loss


def main() -> None:
    """Time the passes of one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("ours", "theirs"))
    parser.add_argument("shape")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--float32", action="store_true")
    options = parser.parse_args()
    clock = Clock()
    shape = shapes(options.quick)[options.shape]
    model, config = ours(shape)
    work = batches(shape, config, 4)
    if options.who == "ours":
        loss = our_loss(shape, model)
        if options.compiled:
            compile_regions(model, lengths_vary=False)
    else:
        model = theirs(shape, model, config)
        loss = their_loss(shape, torch.compile(model) if options.compiled else model)
    clock.stamp()
    for step in range(STEPS if not options.quick else WARMUP + 2):
        narrow = contextlib.nullcontext()
        if not options.float32:
            narrow = torch.autocast("cpu", torch.bfloat16)
        with narrow:
            value = loss(work[step % len(work)])
        value.backward()
        model.zero_grad(set_to_none=True)
        clock.stamp(value.item())
    clock.report(WARMUP, shape.rows * max(1, shape.length))


if __name__ == "__main__":
    main()
