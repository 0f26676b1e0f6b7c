"""What a family reads: made-up batches for the arguments of ``forward``.

A ``Config`` has one of these functions as its method ``inputs``, or one of its own. Made on the
meta device, as ``pipeline/trace.py`` does, a batch takes no memory however large it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SECONDS, RATE = 10.0, 16_000  # of a recording, and its samples a second
FRAMES = 100  # of a sequence
WORDS = 512  # of a text, where a family knows no longest
FEW = 7  # positions of a short text or sequence
FEW_SAMPLES = 800  # of a short recording


@dataclass(frozen=True)
class Inputs:
    """A batch for ``forward``, by keyword, and how much that is.

    ``items`` is how many items of ``flops_per_item`` the batch has, ``unit`` what one is called,
    ``batch`` what the batch is in words.
    """

    tensors: dict[str, Tensor]
    items: float
    unit: str
    batch: str


def texts(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """Tokens (rows, ``config.context``, or ``WORDS``) below ``config.vocabulary``."""
    length = FEW if short else getattr(config, "context", WORDS)
    tokens = torch.randint(config.vocabulary, (rows, length))
    return Inputs({"tokens": tokens}, rows * length, "token", f"{rows} x {length} tokens")


def text_pairs(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """As ``texts``, with as many tokens of the sources."""
    read = texts(config, rows, short=short)
    return _with(read, sources=torch.randint(config.vocabulary, read.tensors["tokens"].shape))


def vectors(config: Any, rows: int, *, short: bool = False) -> Inputs:  # noqa: ARG001
    """Features (rows, ``config.features``)."""
    return _of("example", rows, features=torch.randn(rows, config.features))


def images(config: Any, rows: int, *, short: bool = False) -> Inputs:  # noqa: ARG001
    """Features (rows, *``config.image``, ``config.channels``); an image has 1 or 3 channels."""
    unit = "image" if config.channels in (1, 3) else "example"
    return _of(unit, rows, features=torch.randn(rows, *config.image, config.channels))


def noisy_images(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """``noisy`` as the features of ``images``, and ``times`` (rows,) in 0..1000."""
    read = images(config, rows, short=short)
    noisy, times = read.tensors["features"], torch.rand(rows) * 1000
    return Inputs({"noisy": noisy, "times": times}, read.items, read.unit, read.batch)


def frames(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """Frames (rows, T, ``config.features``) and their ``lengths`` (rows,), the first one T."""
    length = FEW if short else FRAMES
    lengths = length - torch.arange(rows) % length
    features = torch.randn(rows, length, config.features)
    return _of("sequence", rows, frames=features, lengths=lengths)


def recordings(config: Any, rows: int, *, short: bool = False) -> Inputs:  # noqa: ARG001
    """Samples (rows, n) of 10 s of sound, 16,000 of them a second."""
    samples = torch.randn(rows, FEW_SAMPLES if short else int(SECONDS * RATE))
    batch = f"{rows} recordings of {SECONDS:g} s"
    return Inputs({"samples": samples}, rows * SECONDS, "second of sound", batch)


def windows(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """``mel`` (rows, ``config.bands``, 2 ``config.frames``) of whole windows, and ``tokens``."""
    mel = torch.randn(rows, config.bands, 2 * config.frames)
    tokens = texts(config, rows, short=short).tensors["tokens"]
    batch = f"{rows} windows of sound"
    return Inputs({"mel": mel, "tokens": tokens}, rows, "window of sound", batch)


def spoken_texts(config: Any, rows: int, *, short: bool = False) -> Inputs:
    """Letters (rows, S) and their durations, the frames (rows, T, features) of these, and times."""
    lasting = FEW if short else FRAMES
    letters = torch.randint(config.vocabulary, (rows, lasting // 2))
    durations = torch.full((rows, lasting // 2), 2)
    made = torch.randn(rows, 2 * (lasting // 2), config.features)
    times = torch.rand(rows) * 1000
    given = {"letters": letters, "durations": durations, "frames": made, "times": times}
    return _of("recording", rows, **given)


def _of(unit: str, rows: int, **tensors: Tensor) -> Inputs:
    return Inputs(tensors, rows, unit, f"{rows} {unit}s")


def _with(read: Inputs, **more: Tensor) -> Inputs:
    return Inputs({**read.tensors, **more}, read.items, read.unit, read.batch)
