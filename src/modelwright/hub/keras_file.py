"""A user's own ``.keras`` file: a zip of config.json and model.weights.h5, read without code.

The architecture is checked before Keras sees it (``models/keras.py``), and the weights are opened
only when all of them lie in the file itself.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from modelwright.data.fetching import file_sha256
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.models import keras as room
from modelwright.models.keras_json import safe_architecture

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_KNOWN = {CONFIG, WEIGHTS, "metadata.json"}
_LARGEST_CONFIG = 64 << 20
_MOST = 20  # times that the weights may grow when unpacked


@dataclass(frozen=True)
class KerasFile:
    """A model that somebody has saved with Keras 3.

    Attributes:
        source: as the user wrote it.
        path: where it lies.
        architecture: checked JSON.
    """

    source: str
    path: Path
    architecture: str
    revision: None = None
    config: Mapping[str, Any] = field(default_factory=lambda: {"model_type": "keras"})

    @property
    def folder(self) -> Path:
        """Where the file lies."""
        return self.path.parent

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of the file."""
        return {self.path.name: file_sha256(self.path)}

    def fill(self, model: nn.Module) -> None:
        """Copy its weights into a module of ``models/keras.py``.

        Raises:
            CorruptError: the weights cannot be read, or are not those of the architecture.
        """
        keras = room.library()
        _check_links(self.path)
        try:
            with room.quiet():
                saved = keras.saving.load_model(self.path, compile=False, safe_mode=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            line = " ".join(str(error).split())[:200]
            raise CorruptError(f"{self.path}: its weights cannot be read ({line})") from error
        tensors = {
            f"weights.{name}": variable.value.detach().clone()
            for name, variable in room.named_variables(saved)
        }
        model.load_state_dict(tensors)


def find(source: str) -> KerasFile:
    """The file that a recipe names, with its architecture checked.

    Raises:
        ModelwrightError: there is none, or it holds what is not opened here.
        CorruptError: it is damaged.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise ModelwrightError(
            f"{source}: no such file; save the model with model.save('NAME.keras')"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
            if more := sorted(set(sizes) - _KNOWN):
                raise ModelwrightError(
                    f"{path}: holds {more[0]}, which no layer of numbers needs; save it without"
                )
            if missing := {CONFIG, WEIGHTS} - set(sizes):
                raise ModelwrightError(
                    f"{path}: no {min(missing)} in it; save it with Keras 3: model.save(...)"
                )
            if sizes[CONFIG] > _LARGEST_CONFIG or sum(sizes.values()) > (
                _LARGEST_CONFIG + _MOST * path.stat().st_size
            ):
                raise CorruptError(
                    f"{path}: unpacks to {sum(sizes.values()):,} bytes; save it anew"
                )
            written = archive.read(CONFIG)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise CorruptError(
            f"{path}: is no whole .keras file ({str(error)[:100]}); save it with Keras 3, whose "
            "files are zips (HDF5 of older versions: load and save it there)"
        ) from error
    return KerasFile(source, path, safe_architecture(written, str(path)))


def _check_links(path: Path) -> None:
    """Every array of the weights must lie in the file itself: HDF5 can point to others."""
    try:
        import h5py  # noqa: PLC0415 - comes with Keras
    except ImportError as error:
        raise MachineError(f"{path}: needs h5py: pip install 'modelwright[keras]'") from error

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            inner = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(inner, h5py.Group):
                look(inner)
            elif inner is None or inner.external or inner.is_virtual:
                raise CorruptError(
                    f"{path}: {name} of its weights lies in another file; save the model again"
                )

    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(WEIGHTS) as stored,
            h5py.File(stored, "r") as weights,
        ):
            look(weights)
    except (OSError, RuntimeError, zipfile.BadZipFile, RecursionError) as error:
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{path}: its weights are damaged ({line}); save it again") from error
