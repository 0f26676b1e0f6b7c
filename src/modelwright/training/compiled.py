"""Compile the parts of a model that a training step repeats.

A model may name them (``regions``): the compiler then meets a small graph once and uses it for
every layer, which takes a fraction of the time that the whole model would. What is compiled is
kept by PyTorch in a cache on disk, so the second run begins within seconds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from modelwright.kernels.build import compiler_loaded


def can_compile(device: torch.device) -> bool:
    """Whether this machine has what the compiler needs: on a CPU, a C++ compiler."""
    return device.type != "cpu" or bool(shutil.which("g++") or shutil.which("clang++"))


def compile_regions(model: nn.Module, *, lengths_vary: bool) -> bool:
    """Compile what the model names in ``regions``; False where it names nothing.

    Args:
        model: compiled in place; its parameters and their names stay as they are.
        lengths_vary: whether batches differ in their number of positions: the code is then made
            for any number from the start.
    """
    regions = getattr(model, "regions", None)
    if regions is None:
        return False
    # Results do not depend on it; a folder of the user's own outlives the system's /tmp.
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_cache())
    for region in regions():
        region.compile(dynamic=True if lengths_vary else None)
    return True


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "modelwright" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # no home to write to
        return Path(tempfile.gettempdir()) / "modelwright-compiled"
    return folder


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run modules as they are written: what happens beside training is not worth compiling."""
    if not compiler_loaded():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
