"""TensorFlow's side of an export, in a process of its own; see ``child``."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from modelwright.data.child import Child
from modelwright.errors import MachineError, ModelwrightError
from modelwright.types import Array

SECONDS = 1800.0  # for one answer: a large model is compiled function by function


def needed() -> None:
    """Whether both libraries are installed.

    Raises:
        MachineError: one is not.
    """
    for name in ("keras", "tensorflow"):
        if importlib.util.find_spec(name) is None:
            raise MachineError(
                f"--to keras: {name} is not installed: pip install 'modelwright[keras]'"
            )


@functools.cache
def _child() -> Child:
    """Kept alive: it takes seconds to begin."""
    return Child(Path(__file__).with_name("child.py"), (), SECONDS)


def _ask(request: Mapping[str, Any]) -> None:
    answer, lost = _child().ask(json.dumps(request).encode())
    if lost:
        raise MachineError(f"--to keras: TensorFlow's process {lost}; nothing was exported")
    error = json.loads(answer).get("error")
    if error:
        raise ModelwrightError(
            f"export: TensorFlow cannot work with what was written ({error}); nothing was exported"
        )


def convert(model: Path, saved: Path) -> None:
    """Write the SavedModel of a .keras file."""
    _ask({"work": "convert", "model": str(model), "saved": str(saved)})


def replay(
    model: Path,
    saved: Path | None,
    samples: Sequence[Mapping[str, Array]],
    *,
    layers: Sequence[str] = (),
    inside: int = 0,
) -> dict[str, Array]:
    """What both files answer: NUMBER.keras, NUMBER.saved, and layer.NAME of sample ``inside``.

    Args:
        model: the .keras file, loaded anew.
        saved: the SavedModel, loaded anew; None: it is left out.
        samples: the inputs of each by name, with a batch dimension.
        layers: names whose outputs are wanted; those that are not there are passed over.
        inside: of which sample.
    """
    with TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        arrays = {f"{i}.{n}": a for i, sample in enumerate(samples) for n, a in sample.items()}
        with given.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        request = {
            "work": "replay",
            "model": str(model),
            "saved": "" if saved is None else str(saved),
            "samples": len(samples),
            "given": str(given),
            "made": str(made),
            "layers": list(layers),
            "inside": inside,
        }
        _ask(request)
        with np.load(made, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
