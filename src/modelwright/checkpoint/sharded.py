"""Checkpoints that several processes write and read together.

Each process writes the pieces it holds into a file of its own, ``model-00002-of-00004``, in the
same verified form; the first one seals the directory when all of them are on the disk. All
processes see one outcome: they return together, or raise the same error together.
The directory must lie on a file system that all of them share.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from modelwright import files
from modelwright.checkpoint.layout import (
    COMPLETE,
    MANIFEST,
    UNSEALED,
    FileRecord,
    GroupRecord,
    Manifest,
    ShardedRecord,
    WholeRecord,
    folders,
    name_problem,
    part_name,
    seal,
    sha256,
    shard_name,
    step_name,
    steps,
)
from modelwright.checkpoint.loading import Checkpoint, Wanted, load
from modelwright.checkpoint.regions import Piece
from modelwright.checkpoint.saving import (
    Documents,
    _clear,
    _plan_group,
    _prune,
    _refused,
    _remove,
    _write_shard,
)
from modelwright.errors import CorruptError, MachineError, ModelwrightError

Pieces = Mapping[str, Mapping[str, Piece]]


class Peers(Protocol):
    """The processes that save or load together."""

    rank: int
    size: int

    def gather(self, text: str) -> list[str]:
        """What every process says, by rank; all must call it."""
        ...


def save_sharded(
    folder: Path, step: int, pieces: Pieces, documents: Documents, peers: Peers, *, keep: int = 2
) -> Path:
    """Write ``folder/step-<step>`` together; every process calls this with its own pieces.

    Args:
        folder: as in ``save``; all processes must see the same directory.
        step: optimizer steps done so far.
        pieces: group -> name -> piece; every process has the same groups.
        documents: the first process's count.
        peers: the processes.
        keep: complete checkpoints to keep, at least 2.

    Returns:
        The new step directory, sealed.

    Raises:
        MachineError: a process could not write; nothing is left of this save.
        ModelwrightError: a name or tensor that cannot be stored, or the step is already there.
    """
    if keep < 2 or step < 0:
        raise ModelwrightError(
            f"cannot save step {step} with keep={keep}: use step >= 0, keep >= 2"
        )
    save = _Save(folder, step, pieces, documents, peers)
    save.total = sum(answer["bytes"] for answer in save.together(save.plan))
    began = False
    try:
        save.together(save.begin)
        began = True
        said = save.together(save.write)
        save.together(lambda: save.finish(said))
    except BaseException:
        if save.main and began:
            with contextlib.suppress(OSError):
                _remove(save.path)
        raise
    if save.main:
        _prune(folder, step, keep)
    return save.path


class _Save:
    """The steps of one save, each taken by all processes before any takes the next."""

    def __init__(
        self, folder: Path, step: int, pieces: Pieces, documents: Documents, peers: Peers
    ) -> None:
        self.folder, self.step, self.pieces, self.documents = folder, step, pieces, documents
        self.peers, self.main = peers, peers.rank == 0
        self.path = folder / step_name(step)
        self.parts = {group: part_name(group, peers.rank, peers.size) for group in pieces}
        self.mine = {
            g: {n: p.data for n, p in named.items() if _stored(p)} for g, named in pieces.items()
        }
        self.plans: dict[str, GroupRecord] = {}
        self.total = self.needed = 0  # bytes of all processes' tensors, and of the whole checkpoint

    def together(self, work: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """One step on every process; what each says of it, by rank."""
        return _together(self.peers, work, lambda error: _refused(self.path, self.needed, error))

    def plan(self) -> dict[str, int]:
        """What this process will write, and how many bytes that is."""
        for group, part in self.parts.items():
            self.plans[part] = _plan_group(self.folder, part, self.mine[group])
            if tied := self.plans[part].aliases:
                raise ModelwrightError(
                    f"{self.folder}: tensor {min(tied)!r} of {group!r} shares the memory of "
                    "another one: give its piece same_as"
                )
        return {"bytes": sum(record.nbytes for record in self.plans.values())}

    def begin(self) -> dict[str, Any]:
        """The first process makes the folder, once it has seen that there is room."""
        if not self.main:
            return {}
        if problem := name_problem([*self.parts.values()], self.documents):
            raise ModelwrightError(f"{self.folder}: {problem}")
        self.needed = self.total + sum(map(len, self.documents.values())) + (1 << 20)
        files.make_folder(self.folder)
        _clear(self.path)
        if files.free_bytes(self.folder) < self.needed:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.path.mkdir()
        return {}

    def write(self) -> dict[str, Any]:
        """Every process writes its files; what the manifest is to say of them."""
        said: dict[str, Any] = {}
        for group, part in self.parts.items():
            mine, pieces = self.mine[group], self.pieces[group]
            file, record = _write_shard(self.path / shard_name(part), self.plans[part], mine)
            said[group] = {
                "file": file.model_dump(),
                "group": record.model_dump(),
                "regions": {n: _place(pieces[n]) for n in mine},
                "aliases": {n: p.same_as for n, p in pieces.items() if p.same_as},
            }
        files.sync_folder(self.path)
        return said

    def finish(self, said: list[dict[str, Any]]) -> dict[str, Any]:
        """The first process seals what all have written."""
        if self.main:
            _seal(self.path, self.step, _manifest(self.step, said), self.documents)
        return {}


def newest_sound_together(
    folder: Path,
    peers: Peers,
    *,
    groups: Sequence[str] | None = None,
    wanted: Wanted | None = None,
) -> tuple[Checkpoint | None, list[str]]:
    """As ``newest_sound``, for processes that each read a part: all take the same step.

    A checkpoint in which any of them finds damage is passed over by all.
    """
    there = [p.name for p in steps(folder, complete=True)]
    names: list[str] = json.loads(peers.gather(json.dumps(there))[0])
    messages: list[str] = []
    for name in reversed(names):
        found, problem = None, ""
        try:
            found = load(folder / name, groups=groups, wanted=wanted)
        except CorruptError as error:
            problem = str(error)
        problems = [said for said in peers.gather(problem) if said]
        if not problems:
            return found, messages
        messages.append(f"passed over a damaged checkpoint: {problems[0]}")
    return None, messages


def _stored(piece: Piece) -> bool:
    """Whether this process writes the piece; a whole tensor without elements is a piece too."""
    return piece.mine and not piece.same_as and (piece.region.numel > 0 or piece.region.whole)


def _place(piece: Piece) -> dict[str, Any]:
    return {"shape": piece.region.shape, "offset": piece.region.offset}


def _together(
    peers: Peers, work: Callable[[], Mapping[str, Any]], refused: Callable[[OSError], str]
) -> list[Any]:
    """What each process's ``work`` gives; if it fails in any of them, all raise that error."""
    try:
        answer: dict[str, Any] = {"done": work()}
    except OSError as error:
        answer = {"machine": refused(error)}
    except ModelwrightError as error:
        answer = {"wrong": str(error)}
    answers = [json.loads(said) for said in peers.gather(json.dumps(answer))]
    for said in answers:
        if "machine" in said:
            raise MachineError(said["machine"])
        if "wrong" in said:
            raise ModelwrightError(said["wrong"])
    return [said["done"] for said in answers]


def _manifest(step: int, said: Sequence[Mapping[str, Any]]) -> Manifest:
    """The manifest of all that the processes have written, the documents left out."""
    records: dict[str, FileRecord] = {}
    groups: dict[str, GroupRecord] = {}
    sharded: dict[str, ShardedRecord] = {}
    for group in said[0]:
        parts = [part_name(group, rank, len(said)) for rank in range(len(said))]
        shapes: dict[str, list[int]] = {}
        pieces: dict[str, dict[str, list[int]]] = {}
        for part, answer in zip(parts, said, strict=True):
            records[shard_name(part)] = FileRecord(**answer[group]["file"])
            groups[part] = GroupRecord.model_validate_json(json.dumps(answer[group]["group"]))
            for name, place in answer[group]["regions"].items():
                shapes[name] = place["shape"]
                pieces.setdefault(name, {})[part] = place["offset"]
        wholes = {
            name: WholeRecord(
                shape=tuple(shapes[name]), pieces={part: tuple(o) for part, o in offsets.items()}
            )
            for name, offsets in pieces.items()
        }
        aliases = said[0][group]["aliases"]
        sharded[group] = ShardedRecord(parts=tuple(parts), tensors=wholes, aliases=aliases)
    return Manifest(version=2, step=step, files=records, groups=groups, sharded=sharded)


def _seal(path: Path, step: int, manifest: Manifest, documents: Documents) -> None:
    """Write the documents and the manifest; what cannot be read again is never sealed."""
    records = dict(manifest.files)
    records |= {n: FileRecord(bytes=len(c), sha256=sha256(c)) for n, c in documents.items()}
    inner = [path / name for name in folders(records)]
    for folder in inner:
        files.make_folder(folder)
    for name, content in documents.items():
        files.write_file(path / name, [content])
    complete = manifest.model_copy(update={"files": records, "step": step})
    content = complete.encode()
    try:
        Manifest.decode(content)
    except ValueError as error:
        raise ModelwrightError(f"{path}: the pieces do not fit together: {error}") from error
    files.write_file(path / MANIFEST, [content])
    for folder in [*inner, path, path.parent]:
        files.sync_folder(folder)
    files.write_file(path / UNSEALED, [seal(sha256(content))])
    files.rename(path / UNSEALED, path / COMPLETE)
