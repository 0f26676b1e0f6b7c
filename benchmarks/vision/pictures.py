"""CIFAR-10 as arrays, the same for ours and every peer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.training import data

HELD_OUT = 5000
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of pixels 0..1
PADDING = 4  # of the random crop, beside which pictures are mirrored at random
CLASSES = 10
AT_ONCE = 500


class Pictures(NamedTuple):
    """Pixels uint8 (N, 32, 32, 3) and labels int64 (N,), of training and held out."""

    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    held_x: NDArray[np.uint8]
    held_y: NDArray[np.int64]


def cifar10(count: int | None = None) -> Pictures:
    """The first ``count`` pictures to train on, left out: 45,000, and 5,000 held out, or ``count``.

    They are shuffled once and for all, so the first ones have every class. Unpacking takes a
    minute: it is done once, into the folder for temporary files.

    Raises:
        MachineError: the data set is not there.
    """
    folder = data.folder("cifar10")
    kept = Path(tempfile.gettempdir(), "modelwright-bench-cifar10.npz")
    mark = repr(sorted((p.name, p.stat().st_size) for p in folder.glob("*.tar*")))
    if not kept.is_file() or str(np.load(kept)["mark"]) != mark:
        _unpack(folder, kept, mark)
    found = np.load(kept)
    x, y = found["x"], found["y"]
    cut = len(x) - HELD_OUT
    some = min(count or cut, cut)  # a short look is judged shortly
    held = slice(cut, cut + min(HELD_OUT, some))
    return Pictures(x[:some], y[:some], x[held], y[held])


def accuracy(model: Any, found: Pictures, *, mirrored: bool = False) -> float:
    """The share of the held-out pictures that a model names right, ``AT_ONCE`` in a pass.

    Args:
        model: scaled float32 tensors (B, 32, 32, 3) to logits (B, 10), ready to be asked.
        found: the pictures.
        mirrored: take the mean of the logits of a picture and of its mirror image.
    """
    import torch  # noqa: PLC0415 - peers without torch need it here alone

    mean, deviation = (torch.tensor(v) * 255 for v in (MEAN, DEVIATION))
    right = 0
    for start in range(0, len(found.held_y), AT_ONCE):
        x = torch.from_numpy(found.held_x[start : start + AT_ONCE]).float()
        x = (x - mean) / deviation
        logits = model(x)
        if mirrored:
            logits = logits + model(x.flip(2))
        y = torch.from_numpy(found.held_y[start : start + AT_ONCE])
        right += int((logits.argmax(1) == y).sum())
    return right / len(found.held_y)


def _unpack(folder: Path, kept: Path, mark: str) -> None:
    from modelwright.data.sources import read_rows  # noqa: PLC0415 - peers are timed from here

    rows = list(read_rows("cifar10", path=folder))
    names = sorted({str(row["label"]) for row in rows})
    order = np.random.default_rng(0).permutation(len(rows))
    x = np.stack([rows[i]["pixels"] for i in order])
    y = np.array([names.index(str(rows[i]["label"])) for i in order], dtype=np.int64)
    draft = kept.with_suffix(f".{os.getpid()}.npz")
    np.savez(draft, x=x, y=y, mark=np.array(mark))
    draft.replace(kept)
