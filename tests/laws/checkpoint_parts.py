"""What the tests of law 13 share: a small real checkpoint, and a hook on every system call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from modelwright import checkpoint, files

DOCUMENTS = {"state.json": b'{"step": 1}', "codec/tokenizer.json": b"[" + b"1," * 300 + b"2]"}


def contents(step: int, width: int = 24) -> dict[str, dict[str, Tensor]]:
    """The groups of a small real run: a model with tied weights, AdamW moments, random state."""
    generator = torch.Generator().manual_seed(step)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    embed = draw(width, 8)
    model = {
        "embed": embed,
        "head": embed,
        "layer.0": draw(8, 8).bfloat16(),
        "scale": draw(1)[0],
        "mask": draw(8) > 0,
    }
    moments = {f"{name}.exp_avg": draw(*t.shape) for name, t in model.items()}
    moments["step"] = torch.tensor(step)
    return {"model": model, "optimizer": moments, "random": {"cpu": generator.get_state()}}


def save(folder: Path, step: int, **options: Any) -> Path:
    return checkpoint.save(folder, step, contents(step), DOCUMENTS, **options)


def assert_holds(loaded: checkpoint.Checkpoint | None, step: int) -> None:
    assert loaded is not None
    assert loaded.step == step
    assert loaded.documents == DOCUMENTS
    for group, named in contents(step).items():
        assert loaded.tensors[group].keys() == named.keys()
        for name, tensor in named.items():
            assert torch.equal(loaded.tensors[group][name], tensor)


def all_files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


@contextmanager
def system_calls(before: Callable[[str, str], None]) -> Iterator[None]:
    """Call ``before(call, path)`` ahead of every system call by which a save reaches the disk."""
    with pytest.MonkeyPatch.context() as patch:
        opened: dict[int, str] = {}

        def opening(path: Path, *rest: int) -> int:
            before("open", str(path))
            descriptor = os.open(path, *rest)
            opened[descriptor] = str(path)
            return descriptor

        def write(descriptor: int, data: Any) -> int:
            before("write", opened[descriptor])
            return os.write(descriptor, data[: max(1, len(data) // 2)])  # short, as it may be

        def fsync(descriptor: int) -> None:
            before("fsync", opened[descriptor])
            os.fsync(descriptor)

        plain = {name: getattr(os, name) for name in ("close", "O_WRONLY", "O_CREAT", "O_EXCL")}
        plain |= {name: getattr(os, name) for name in ("O_RDONLY", "O_DIRECTORY")}
        shim = SimpleNamespace(**plain, open=opening, write=write, fsync=fsync)
        patch.setattr(files, "os", shim)
        mkdir, replace, unlink = Path.mkdir, Path.replace, Path.unlink
        patch.setattr(
            Path, "mkdir", lambda p, *a, **k: (before("mkdir", str(p)), mkdir(p, *a, **k))
        )
        patch.setattr(Path, "replace", lambda p, to: (before("rename", str(to)), replace(p, to)))
        patch.setattr(Path, "unlink", lambda p, **k: (before("unlink", str(p)), unlink(p, **k)))
        yield
