"""What a corpus is made from, written down before it is: every input with its size and hash.

Nothing that appears later in a folder slips into a run that is gone on with half-way, and units
are cut from the content of inputs, so neither the number of workers nor the order of a listing
can move a row from one unit to another.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.data import catalog
from modelwright.data.corpus.marks import blake, blake_file, canonical
from modelwright.data.corpus.spec import CorpusSpec, Source, named
from modelwright.data.corpus.steps import described, make_operation
from modelwright.data.corpus.unit import Unit
from modelwright.data.fetching import is_address, local
from modelwright.data.readers.reader import Input, inputs, make_reader
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.files import replace_file

Say = Callable[[str], None]
FROZEN = "inputs.json"


@dataclass(frozen=True)
class Frozen:
    """An input as it was when the corpus was planned.

    Attributes:
        source: the name of its source.
        path: where it lies, absolute.
        key: its name within the source.
        reader: ``steps.described`` of its reader.
        size: bytes, of all files together if it is a folder.
        hash: BLAKE2 of its content, of names and contents if it is a folder.
        stamp: hash of sizes and times of change, by which a changed input is noticed cheaply.
        ranges: ``Range.as_json`` of its parts.
    """

    source: str
    path: str
    key: str
    reader: dict[str, Any]
    size: int
    hash: str
    stamp: str
    ranges: list[list[int | None]]


def freeze(spec: CorpusSpec, folder: Path, say: Say) -> list[Frozen]:
    """List and hash the inputs of a corpus; what has not changed since the last time is kept.

    Raises:
        ModelwrightError: a source is not there, is empty or cannot be read.
    """
    before = {(one.source, one.path): one for one in stored(folder)}
    found: list[Frozen] = []
    for source, name in zip(spec.sources, spec.source_names(), strict=True):
        reader, settings = _reader(source)
        paths, root = located(source, folder, say)
        mine = inputs(paths, root, reader, notes=source.notes)
        if not mine:
            raise ModelwrightError(
                f"source {name}: no readable file in {source.path}; name a reader with 'reader:'"
            )
        for one in mine:
            old = before.get((name, str(one.path.resolve())))
            found.append(_frozen(name, one, settings, old))
    return found


def store(folder: Path, found: Iterable[Frozen]) -> None:
    """Write the list of inputs into the corpus, unless it is there."""
    content = json.dumps([vars(one) for one in found], indent=1, sort_keys=True).encode() + b"\n"
    path = folder / FROZEN
    if not path.exists() or path.read_bytes() != content:
        replace_file(path, content)


def stored(folder: Path) -> list[Frozen]:
    """The inputs that a corpus was made from; nothing where it is new."""
    try:
        return [Frozen(**one) for one in json.loads((folder / FROZEN).read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):  # of an older form: everything is hashed again
        return []


def changed(found: Iterable[Frozen]) -> str | None:
    """The path of an input that has changed since it was frozen, or None."""
    for one in found:
        try:
            if _stamp(Path(one.path)) != one.stamp:
                return one.path
        except OSError:
            return one.path
    return None


def _frozen(source: str, one: Input, settings: dict[str, Any], old: Frozen | None) -> Frozen:
    path = one.path.resolve()
    reader = make_reader(one.reader, settings)
    shape = described(one.reader, reader)
    try:
        stamp, size = _stamp(path), sum(file.stat().st_size for file in _files(path))
        if not size:
            raise ModelwrightError(f"source {source}: {one.path} is empty; give one with content")
        same = old is not None and old.stamp == stamp
        hashed = old.hash if old and same else _hash(path)
        if old and same and old.reader == shape:
            ranges = old.ranges
        else:
            ranges = [part.as_json() for part in reader.cut(path)]
    except OSError as error:
        raise ModelwrightError(
            f"source {source}: {one.path} cannot be read ({error.strerror}); give a readable copy"
        ) from error
    return Frozen(source, str(path), one.key, shape, size, hashed, stamp, ranges)


def _files(path: Path) -> Iterator[Path]:
    """A file itself, or the files below a folder, in order."""
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    else:
        yield path


def _stamp(path: Path) -> str:
    times = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(path)]
    return blake(canonical(times))


def _hash(path: Path) -> str:
    if not path.is_dir():
        return blake_file(path)
    return blake(canonical([(str(f.relative_to(path)), blake_file(f)) for f in _files(path)]))


def located(source: Source, folder: Path, say: Say) -> tuple[list[Path], Path]:
    """The files and folders that a source names, and what their keys are relative to.

    What lies behind an address or in the catalog is fetched first.

    Raises:
        ModelwrightError: nothing is there; the nearest name is given.
    """
    path = Path(source.path).expanduser()
    if is_address(source.path):
        fetched = local(source.path, source.sha256, folder / "fetched", say)
        return [fetched], fetched
    if path.exists():
        return [path], path
    if set(source.path) & set("*?["):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207
        if found:
            return found, Path(*path.parts[: _first_magic(path)])
        raise ModelwrightError(f"source {source.path}: no file matches; correct the pattern")
    if source.path in catalog.names():
        there = catalog.get(source.path, None, say)
        return [there], there
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = did_you_mean(path.name, (p.name for p in beside))
    near = near or did_you_mean(source.path, catalog.names())
    raise ModelwrightError(
        f"source {source.path}: no such file or folder, nor a data set of the catalog{near}"
    )


def _first_magic(path: Path) -> int:
    return next(i for i, part in enumerate(path.parts) if set(part) & set("*?["))


def plan_read(spec: CorpusSpec, found: Iterable[Frozen], sketch: dict[str, Any]) -> list[Unit]:
    """The units of the stage ``read``: one for every range of every input."""
    steps = []
    for step in spec.steps:
        name, settings = named(step)
        made = make_operation(name, settings)
        steps.append(described(name, made, made.assets()))
    licenses = {n: _license(s) for n, s in zip(spec.source_names(), spec.sources, strict=True)}
    units: list[Unit] = []
    for one in found:
        for part in one.ranges:
            arguments = {
                "source": {"name": one.source, "license": licenses[one.source]},
                "reader": one.reader,
                "input": {"key": one.key, "hash": one.hash},
                "range": part,
                "steps": steps,
                "sketch": sketch,
            }
            name = f"{one.source}-{blake(canonical([one.key, part]))[:12]}"
            aside = {"path": one.path}
            work = "modelwright.data.corpus.read:read"
            size = one.size // len(one.ranges)
            units.append(Unit("read", name, work, arguments, aside=aside, bytes=size))
    return units


def _reader(source: Source) -> tuple[str | None, dict[str, Any]]:
    """The reader of a source and its settings: as it says, else as the catalog does."""
    if source.reader is not None:
        return named(source.reader)
    if source.path in catalog.names() and not Path(source.path).exists():
        entry = catalog.entry(source.path)
        return entry.reader or None, dict(entry.settings)
    return None, {}


def _license(source: Source) -> str:
    """The licence of a source: as it says, else as the catalog does."""
    if source.license is None and source.path in catalog.names():
        return catalog.entry(source.path).license
    return source.license or ""
