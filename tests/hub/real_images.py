"""Real images for the tests of vision families."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelwright.data.pictures import decode, resized


def images(data: Callable[[str], Path], height: int, width: int, count: int = 2) -> Tensor:
    """Photographs of flowers, (count, height, width, 3) float32, scaled to about -1 .. 1."""
    with tarfile.open(data("flowers12") / "flowers12.tar") as archive:
        members = islice((m for m in archive if m.name.endswith(".jpg")), count)
        found = [decode(archive.extractfile(m).read())[0] for m in members]  # type: ignore[union-attr]
    pixels = np.stack([resized(pixels, width, height) for pixels in found])
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1)
