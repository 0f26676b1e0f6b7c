"""Reading a checkpoint: everything is checked, in one pass, before anything is believed.

Each tensor is read once, into the memory that the caller gets, and hashed there. Nothing is
read again after its check, so what was verified is what reaches the model.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from modelwright.checkpoint.layout import (
    COMPLETE,
    DTYPES,
    MANIFEST,
    MANIFEST_LIMIT,
    Manifest,
    TensorRecord,
    folders,
    seal,
    sha256,
    shard_name,
    step_of,
    steps,
)
from modelwright.checkpoint.regions import Region
from modelwright.errors import CorruptError, ModelwrightError, did_you_mean

# (group, tensor, its whole shape) -> the part that is wanted
Wanted = Callable[[str, str, tuple[int, ...]], Region]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory.

    Attributes:
        path: the step directory it came from.
        step: optimizer steps done when it was saved.
        tensors: group -> name -> tensor on the CPU; tied names hold the same object.
        documents: relative name -> content.
    """

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    documents: dict[str, bytes]


def load(
    path: Path, *, groups: Sequence[str] | None = None, wanted: Wanted | None = None
) -> Checkpoint:
    """Verify every file of a checkpoint, then hand out its tensors and documents.

    Args:
        path: a step directory.
        groups: the groups to keep in memory, all when None; all are verified in any case.
        wanted: the part of each tensor to keep, everything when None. Pieces of sharded tensors
            in which nothing is wanted are not read; what is read is verified.

    Raises:
        CorruptError: names the first damaged file and tensor, both hashes, and what to do.
        ModelwrightError: a group is asked for that the checkpoint does not have.
    """
    checkpoint, problems = _read(path, groups, wanted)
    if checkpoint is None:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise CorruptError(f"{problems[0]}{more}; {_advice(path)}")
    return checkpoint


def verify(path: Path) -> list[str]:
    """Say in one line each what is wrong with a checkpoint; an empty list when it is sound."""
    return _read(path, ())[1]


def newest(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step in ``folder``, without reading it."""
    return next(reversed(steps(folder, complete=True)), None)


def newest_sound(
    folder: Path, *, groups: Sequence[str] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest checkpoint that verifies, going back past damaged ones.

    Returns:
        The checkpoint, or None when the folder has no sound one; and one line for every newer
        one that was passed over. The damaged ones stay where they are.

    Raises:
        ModelwrightError: a group is asked for that the checkpoint does not have.
    """
    messages: list[str] = []
    for path in reversed(steps(folder, complete=True)):
        try:
            return load(path, groups=groups), messages
        except CorruptError as error:
            messages.append(f"passed over a damaged checkpoint: {error}")
    return None, messages


def _advice(path: Path) -> str:
    step = step_of(path)
    older = [p for p in steps(path.parent, complete=True) if step and (step_of(p) or 0) < step]
    if older:
        return f"go back to {older[-1]}, or restore this directory from a copy"
    return "restore this directory from a copy; no older checkpoint is beside it"


def _read(
    path: Path, groups: Sequence[str] | None, wanted: Wanted | None = None
) -> tuple[Checkpoint | None, list[str]]:
    if not path.is_dir():
        return None, [f"{path}: there is no such checkpoint directory"]
    try:
        regular, odd = _entries(path)
        manifest = _read_manifest(path, regular)
    except (ValueError, OSError) as error:
        return None, [str(error)]
    _require_groups(path, groups or (), manifest)
    expected = {MANIFEST, COMPLETE, *manifest.files}
    inner = set(folders(manifest.files))
    problems = [f"{path / name}: is missing" for name in sorted(expected - regular - odd)]
    unknown = (regular - expected) | (odd - expected - inner)
    problems += [f"{path / name}: does not belong to this checkpoint" for name in sorted(unknown)]
    problems += [f"{path / name}: is not a regular file" for name in sorted(odd & expected)]

    checkpoint = Checkpoint(path, manifest.step, {}, {})
    shards = {shard_name(group): group for group in manifest.groups}
    for name in sorted(regular & set(manifest.files)):
        try:
            if name not in shards:
                checkpoint.documents[name] = _read_document(path, name, manifest)
                continue
            group = shards[name]
            owner = manifest.owner(group)
            kept = None
            if groups is None or owner in groups:
                tensors = checkpoint.tensors.setdefault(owner, {})
                kept = _Kept(manifest, owner, group, tensors, wanted)
            _read_shard(path, group, manifest, kept, problems)
        except ValueError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path / name}: cannot be read ({error.strerror})")
    for name, tensors in checkpoint.tensors.items():
        _complete(tensors, name, manifest, wanted)
    return (None if problems else checkpoint), problems


def _require_groups(path: Path, wanted: Sequence[str], manifest: Manifest) -> None:
    for group in wanted:
        if group not in manifest.names:
            near = did_you_mean(group, manifest.names)
            known = ", ".join(manifest.names) or "none"
            raise ModelwrightError(f"{path}: has no group {group!r}{near}; it has: {known}")


def _entries(path: Path) -> tuple[set[str], set[str]]:
    """Everything under ``path`` by relative name: regular files, and all else."""
    regular: set[str] = set()
    odd: set[str] = set()
    for folder, inner, files in os.walk(path):
        for name in inner + files:
            entry = Path(folder, name)
            kind = regular if stat.S_ISREG(entry.lstat().st_mode) else odd
            kind.add(entry.relative_to(path).as_posix())
    return regular, odd


def _read_manifest(path: Path, regular: set[str]) -> Manifest:
    """Read the manifest under its seal; ValueError says which of the two is damaged."""
    if COMPLETE not in regular:
        raise ValueError(f"{path / COMPLETE}: is missing, so this save was never finished")
    if MANIFEST not in regular:
        raise ValueError(f"{path / MANIFEST}: is missing")
    content = _read_file(path / MANIFEST, MANIFEST_LIMIT)
    actual = sha256(content)
    found = _read_file(path / COMPLETE, len(seal(actual)))
    if found != seal(actual):
        claimed = found[:64].decode("ascii", "replace")
        if found == seal(claimed):  # the seal is whole, so it is the manifest that changed
            raise ValueError(_damage(path / MANIFEST, "content", claimed, actual))
        raise ValueError(_damage(path / COMPLETE, "content", sha256(seal(actual)), sha256(found)))
    try:
        manifest = Manifest.decode(content)
    except ValueError as error:
        raise ValueError(f"{path / MANIFEST}: is not understood: {error}") from None
    if step_of(path) not in (None, manifest.step):
        raise ValueError(
            f"{path / MANIFEST}: belongs to step {manifest.step}, not to this directory"
        )
    return manifest


def _read_document(path: Path, name: str, manifest: Manifest) -> bytes:
    record = manifest.files[name]
    content = _read_file(path / name, record.bytes)
    _require_size(path / name, len(content), record.bytes)
    if sha256(content) != record.sha256:
        raise ValueError(_damage(path / name, "content", record.sha256, sha256(content)))
    return content


class _Kept:
    """Where the tensors of one file go: into the wanted regions of their group's tensors."""

    def __init__(
        self,
        manifest: Manifest,
        owner: str,
        part: str,
        tensors: dict[str, Tensor],
        wanted: Wanted | None,
    ) -> None:
        self.manifest, self.owner, self.part = manifest, owner, part
        self.tensors, self.wanted = tensors, wanted

    def boxes(self, name: str, entry: TensorRecord) -> tuple[Region, Region]:
        """Which region of a tensor lies in the file, and which one is wanted."""
        held = Region.all(entry.shape)
        if self.owner != self.part:
            held = self.manifest.region(self.owner, name, self.part)
        asked = self.wanted(self.owner, name, held.shape) if self.wanted else Region.all(held.shape)
        return held, asked

    def wants(self, name: str, entry: TensorRecord) -> bool:
        """Whether any of this piece is wanted; tensors that are no pieces are always read."""
        held, asked = self.boxes(name, entry)
        return held.whole or held.common(asked) is not None

    def put(self, name: str, entry: TensorRecord, tensor: Tensor) -> None:
        """Keep what is wanted of a verified piece."""
        held, asked = self.boxes(name, entry)
        if held == asked:
            self.tensors[name] = tensor
            return
        if name not in self.tensors:
            self.tensors[name] = torch.empty(asked.extent, dtype=tensor.dtype)
        if common := held.common(asked):
            place = common.within(asked).of(self.tensors[name])
            place.copy_(common.within(held).of(tensor))


def _read_shard(
    path: Path, group: str, manifest: Manifest, kept: _Kept | None, problems: list[str]
) -> None:
    """Read one safetensors file in a single pass, adding a line to ``problems`` per damage.

    The header and every tensor are compared, and the size, so no byte of the file is left out; the
    file's own hash is for others. Tensors are hashed by threads while the next ones are read.
    """
    file = path / shard_name(group)
    record = manifest.files[shard_name(group)]
    with FileIO(file) as source, ThreadPoolExecutor(_hashers()) as pool:
        _require_size(file, os.fstat(source.fileno()).st_size, record.bytes)
        expected = manifest.groups[group].header()
        header = bytearray(len(expected))
        _fill(source, memoryview(header))
        if header != expected:
            problems.append(_damage(file, "header", sha256(expected), sha256(bytes(header))))
        hashes: list[tuple[str, TensorRecord, Future[str]]] = []
        for name, entry in manifest.groups[group].tensors.items():
            if kept is not None and not kept.wants(name, entry):
                source.seek(entry.nbytes, os.SEEK_CUR)
                continue
            data = torch.empty(entry.nbytes, dtype=torch.uint8)
            view = data.numpy().data
            _fill(source, view)
            hashes.append((name, entry, pool.submit(sha256, view)))
            if kept is not None:
                kept.put(name, entry, _shaped(file, data, entry))
            elif len(hashes) > 2 * _hashers():  # what is not kept does not pile up
                hashes[-_hashers()][2].result()
        for name, entry, made in hashes:
            if (actual := made.result()) != entry.sha256:
                problems.append(_damage(file, f"tensor {name!r}", entry.sha256, actual))


def _hashers() -> int:
    return min(8, os.cpu_count() or 1)


def _shaped(file: Path, data: Tensor, entry: TensorRecord) -> Tensor:
    try:
        return data.view(DTYPES[entry.dtype]).reshape(entry.shape)
    except (RuntimeError, OverflowError, TypeError):  # an empty tensor may claim any extent
        raise ValueError(f"{file}: no tensor can have the shape {entry.shape}") from None


def _complete(
    tensors: dict[str, Tensor], group: str, manifest: Manifest, wanted: Wanted | None
) -> None:
    """Add the tied names, and the regions so empty that no piece lies in them."""
    sharded = manifest.sharded.get(group)
    for name, whole in sharded.tensors.items() if sharded and wanted else ():
        if name not in tensors and wanted is not None:
            dtype = DTYPES[manifest.groups[next(iter(whole.pieces))].tensors[name].dtype]
            tensors[name] = torch.empty(wanted(group, name, whole.shape).extent, dtype=dtype)
    aliases = sharded.aliases if sharded else manifest.groups[group].aliases
    tensors |= {alias: tensors[target] for alias, target in aliases.items() if target in tensors}


def _damage(file: Path, part: str, expected: str, actual: str) -> str:
    return f"{file}: {part} is damaged (sha256 expected {expected}, actual {actual})"


def _require_size(file: Path, actual: int, expected: int) -> None:
    if actual != expected:
        what = "is cut short" if actual < expected else "is too long"
        raise ValueError(f"{file}: {what} (bytes expected {expected}, actual {actual})")


def _read_file(file: Path, limit: int) -> bytes:
    """At most ``limit`` + 1 bytes, enough to see that a file is too long without reading it."""
    with FileIO(file) as source:
        size = min(os.fstat(source.fileno()).st_size, limit + 1)
        content = bytearray(size)
        _fill(source, memoryview(content))
    return bytes(content)


def _fill(source: FileIO, view: memoryview) -> None:
    while view:
        count = source.readinto(view)
        if not count:
            raise OSError(0, "it ended while it was being read")
        view = view[count:]
