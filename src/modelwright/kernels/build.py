"""Compile a kernel once and load it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelwright.processor import cpu_flags, cpu_name

_ROOM = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17", "-w")


@functools.cache
def library(name: str, needs: tuple[str, ...]) -> ctypes.CDLL | None:
    """The compiled kernel ``name``, or None where it cannot run.

    Args:
        name: a C++ file of this room.
        needs: processor flags that it uses, as Linux names them.
    """
    compiler = shutil.which("g++") or shutil.which("clang++")
    if os.environ.get("MODELWRIGHT_KERNELS") == "0" or compiler is None:
        return None
    if not set(needs) <= cpu_flags():
        return None
    try:
        built = _built(compiler)
        if not built[name].exists():
            # All at once: the others are wanted a moment later.
            missing = [n for n, path in built.items() if not path.exists()]
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda n: _compile(compiler, n, built[n]), missing))
        return ctypes.CDLL(str(built[name]))
    except (OSError, subprocess.CalledProcessError):
        return None  # a compiler that fails is one we do not have


def _built(compiler: str) -> dict[str, Path]:
    """Where each kernel lies when it is built from this source, for this processor."""
    shared = hashlib.sha256()
    for header in sorted(_ROOM.glob("*.h")):
        shared.update(header.read_bytes())
    for part in (*FLAGS, compiler, cpu_name(), *sorted(cpu_flags())):
        shared.update(part.encode())
    found = {}
    for source in sorted(_ROOM.glob("*.cpp")):
        mark = shared.copy()
        mark.update(source.read_bytes())
        found[source.stem] = _cache() / f"{source.stem}-{mark.hexdigest()[:16]}.so"
    return found


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "modelwright" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _compile(compiler: str, name: str, built: Path) -> None:
    """Under another name first: a process beside this one never loads half a file."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        made = Path(folder) / built.name
        subprocess.run(  # noqa: S603 - our own source, a compiler from PATH
            [compiler, *FLAGS, str(_ROOM / f"{name}.cpp"), "-o", str(made)],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        made.replace(built)


def constant(answer: Callable[[], bool]) -> Callable[[], bool]:
    """Tell the compiler that a question has one answer in a process.

    What ``torch.compiler.assume_constant_result`` does, without loading the compiler for it.
    """
    answer._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return answer


def hollow(x: object) -> bool:
    """Whether it is a tensor of torch with a shape and no numbers: no kernel is called for it.

    What a step would hold is found on such tensors (``pipeline/trace.py``), by the way that real
    ones go.
    """
    return type(x).__module__ == "torch._subclasses.fake_tensor"


def compiler_loaded() -> bool:
    """Whether PyTorch's compiler is in use; loading it takes a second that others are spared."""
    return "torch._dynamo" in sys.modules
