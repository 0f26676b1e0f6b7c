"""Public data sets by name: what they are, whence, under which licence, and how they are read.

The entries are in ``data_sets`` beside this file. A copy in the folder of data sets
($MODELWRIGHT_DATA, else ../shared/data) is taken first and checked; then the network is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from modelwright.data.fetching import download, file_sha256
from modelwright.errors import CorruptError, MachineError, ModelwrightError, did_you_mean
from modelwright.files import free_bytes

CHECKED_BYTES = 1 << 30  # a larger file of the mirror is not hashed again each time


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    Attributes:
        name: of the file in the folder.
        mirror: sha256 of the copy in the folder of data sets, which may be repacked; None: unknown.
        address: where it is had; None: by hand only.
        sha256: of what ``address`` gives; None: not known for certain, or changing.
        bytes: its size; 0: unknown.
    """

    name: str
    mirror: str | None = None
    address: str | None = None
    sha256: str | None = None
    bytes: int = 0


@dataclass(frozen=True)
class DataSet:
    """An entry of the catalog.

    Attributes:
        name: as a recipe or ``modelwright data get`` calls it.
        about: what it holds.
        license: under which it may be used.
        origin: whence it comes.
        changes: what a copy in the folder of data sets has been done to.
        reader: the reader of a corpus for it; "" where files differ or only a recipe's ``data:``
            section reads it.
        settings: of that reader.
        files: what it is made of; none where it must be got by hand.
    """

    name: str
    about: str
    license: str
    origin: str
    changes: str = ""
    reader: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    files: tuple[DataFile, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of its files, as far as it is known."""
        return sum(file.bytes for file in self.files)


@lru_cache(maxsize=1)
def _entries() -> dict[str, DataSet]:
    found: dict[str, DataSet] = {}
    for written in files("modelwright.data").joinpath("data_sets").iterdir():
        for name, entry in yaml.safe_load(written.read_text("utf-8")).items():
            parts = tuple(DataFile(n, **about) for n, about in entry.pop("files").items())
            found[name] = DataSet(name, origin=entry.pop("from"), files=parts, **entry)
    return found


def names() -> list[str]:
    """The names of all data sets of the catalog."""
    return sorted(_entries())


def entry(name: str) -> DataSet:
    """The entry of a data set.

    Raises:
        ModelwrightError: there is none of this name; the nearest is named.
    """
    if name not in _entries():
        raise ModelwrightError(
            f"no data set {name!r} in the catalog{did_you_mean(name, names())};"
            f" known: {', '.join(names())}"
        )
    return _entries()[name]


def mirrored(name: str) -> Path | None:
    """The folder of a data set in the folder of data sets, or None where it is not there."""
    from modelwright.data.sources import data_root  # noqa: PLC0415 - loads numpy and torch

    root = data_root()
    folder = root / name if root is not None else None
    return folder if folder is not None and folder.is_dir() else None


def get(name: str, folder: Path | None, say: Callable[[str], None]) -> Path:
    """The folder with the files of a data set, fetched if they are nowhere yet, and checked.

    Args:
        name: of the catalog.
        folder: where data sets are kept: the files go to ``folder/name``; None takes the folder
            of data sets, else "data".
        say: takes lines about where it is found and what is fetched.

    Raises:
        ModelwrightError: there is no such data set, or it must be got by hand.
        CorruptError: a file is not what the catalog says.
        MachineError: the network does not give it, or the disk is too full.
    """
    one = entry(name)
    mirror = mirrored(name)
    if mirror is not None and all((mirror / file.name).is_file() for file in one.files):
        for file in one.files:
            _check_mirror(mirror / file.name, file)
        say(f"{name}: {mirror}; licence: {one.license}")
        return mirror
    if not one.files or any(file.address is None for file in one.files):
        raise ModelwrightError(
            f"data set {name!r} cannot be fetched by itself: get it from {one.origin}"
            + (f" ({one.changes})" if one.changes else "")
            + f" into DIR/{name} and set MODELWRIGHT_DATA=DIR"
        )
    target = (folder or _root() or Path("data")) / name
    target.mkdir(parents=True, exist_ok=True)
    missing = sum(f.bytes for f in one.files if not (target / f.name).exists())
    if missing > free_bytes(target):
        raise MachineError(
            f"data set {name!r}: {missing} bytes are needed in {target},"
            f" {free_bytes(target)} are free: name another folder"
        )
    for file in one.files:
        if file.sha256 is None:
            say(f"{file.name}: no sha256 is known for certain, so its content cannot be checked")
        if file.address is not None:
            download(file.address, target / file.name, file.sha256, say)
    say(f"{name}: {target}; licence: {one.license}")
    return target


def _root() -> Path | None:
    from modelwright.data.sources import data_root  # noqa: PLC0415 - see `mirrored`

    return data_root()


def _check_mirror(path: Path, file: DataFile) -> None:
    """A copy is the repacked file or the original one; large ones are trusted by their size."""
    known = [h for h in (file.mirror, file.sha256) if h]
    if not known or path.stat().st_size > CHECKED_BYTES:
        return
    found = file_sha256(path)
    if found not in known:
        raise CorruptError(
            f"{path}: sha256 is {found}, {known[0]} is meant: get the file again, or take it out"
            " of the folder"
        )
