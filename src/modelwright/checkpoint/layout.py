"""What lies in a checkpoint: its names, its manifest, its seal, and the bytes of its headers.

A step directory holds ``<group>.safetensors`` files, documents, ``manifest.json`` and, last,
``COMPLETE``. COMPLETE carries the hash of the manifest and a check of itself; the manifest
carries the size and hash of every file and the type, shape and hash of every tensor. The header
of a safetensors file follows from the manifest, so a reader computes it and compares: no offset
is ever taken from a file that has not been checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelwright.checkpoint.regions import Region, problem_of

MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
UNSEALED = COMPLETE + ".tmp"
MANIFEST_LIMIT = 64 << 20  # bytes; room for about 400,000 tensors

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_STEP = re.compile(r"step-(\d{8,})")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Size = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class TensorRecord(_Record):
    """One stored tensor: safetensors type name, shape, hash of its bytes in row order."""

    dtype: str
    shape: tuple[Size, ...]
    sha256: Sha256

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class GroupRecord(_Record):
    """One safetensors file: its tensors in file order, and names that share one of them."""

    tensors: dict[str, TensorRecord]
    aliases: dict[str, str]  # tied name -> the stored name it shares memory with

    def header(self) -> bytes:
        """The bytes before the data: length (8 bytes, little endian) and a JSON table.

        Source: the safetensors format. Padded to 64 bytes, so that data mapped into memory is
        aligned for vector loads.
        """
        table: dict[str, object] = {"__metadata__": {"format": "pt"}}
        begin = 0
        for name, tensor in self.tensors.items():
            end = begin + tensor.nbytes
            shape = list(tensor.shape)
            table[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [begin, end]}
            begin = end
        text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % 64)
        return struct.pack("<Q", len(text)) + text

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header()) + sum(t.nbytes for t in self.tensors.values())


class FileRecord(_Record):
    """One file: how long it is, and the hash of all its bytes."""

    bytes: Size
    sha256: Sha256


class WholeRecord(_Record):
    """One tensor that lies in pieces: its shape, and where the piece in each file begins."""

    shape: tuple[Size, ...]
    pieces: dict[str, tuple[Size, ...]]  # group of the file -> offset of its tensor in the whole


class ShardedRecord(_Record):
    """One group of tensors that several processes wrote, each into a file of its own."""

    parts: tuple[str, ...]  # the groups of its files
    tensors: dict[str, WholeRecord]
    aliases: dict[str, str]


class Manifest(_Record):
    """What a checkpoint must hold, and nothing else may be beside it.

    Version 2 has ``sharded`` groups, whose files are groups as well.
    """

    format: Literal["modelwright-checkpoint"] = "modelwright-checkpoint"
    version: Literal[1, 2] = 1
    step: Size
    files: dict[str, FileRecord]
    groups: dict[str, GroupRecord]
    sharded: dict[str, ShardedRecord] = {}

    def encode(self) -> bytes:
        """The content of ``manifest.json``."""
        absent = set() if self.sharded else {"sharded"}
        return self.model_dump_json(indent=1, exclude=absent).encode() + b"\n"

    @staticmethod
    def decode(content: bytes) -> Manifest:
        """Read a manifest and check that it agrees with itself.

        Raises:
            ValueError: one line saying what is wrong.
        """
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole file"
            raise ValueError(f"{place}: {first['msg']}") from None
        for name, group in manifest.groups.items():
            manifest._check_group(name, group)
        manifest._check_sharded()
        if problem := name_problem(manifest.groups, manifest.documents):
            raise ValueError(problem)
        return manifest

    def _check_group(self, name: str, group: GroupRecord) -> None:
        for tensor, record in group.tensors.items():
            if record.dtype not in DTYPES:
                raise ValueError(f"tensor {tensor!r} has the unknown type {record.dtype!r}")
        for alias, target in group.aliases.items():
            if alias in group.tensors or target not in group.tensors:
                raise ValueError(f"tied tensor {alias!r} does not share a stored one")
        file = self.files.get(shard_name(name))
        if file is None or file.bytes != group.nbytes:
            raise ValueError(f"the tensors of {name!r} do not fill {shard_name(name)}")

    def _check_sharded(self) -> None:
        if (self.version == 2) != bool(self.sharded):
            raise ValueError(f"version: {self.version} goes with sharded groups or without, not so")
        parts = [part for record in self.sharded.values() for part in record.parts]
        if len(set(parts)) != len(parts) or not set(parts) <= self.groups.keys():
            raise ValueError("sharded: a file belongs to no group or to two")
        for name, record in self.sharded.items():
            if name in self.groups:
                raise ValueError(f"group {name!r} is both whole and sharded")
            stored = {(part, t) for part in record.parts for t in self.groups[part].tensors}
            named = {(part, t) for t, whole in record.tensors.items() for part in whole.pieces}
            if stored != named or any(self.groups[part].aliases for part in record.parts):
                raise ValueError(f"sharded group {name!r} does not name what its files hold")
            if not set(record.aliases.values()) <= record.tensors.keys():
                raise ValueError(f"a tied tensor of {name!r} does not share a stored one")
            for tensor, whole in record.tensors.items():
                if any(len(offset) != len(whole.shape) for offset in whole.pieces.values()):
                    raise ValueError(f"a piece of {tensor!r} has other dimensions")
                boxes = [self.region(name, tensor, part) for part in whole.pieces]
                if problem := problem_of(whole.shape, boxes):
                    raise ValueError(f"tensor {tensor!r}: {problem}")
                if len({self.groups[part].tensors[tensor].dtype for part in whole.pieces}) > 1:
                    raise ValueError(f"the pieces of {tensor!r} differ in type")

    def region(self, group: str, tensor: str, part: str) -> Region:
        """Where the piece of a tensor that lies in the file ``part`` belongs."""
        whole = self.sharded[group].tensors[tensor]
        extent = self.groups[part].tensors[tensor].shape
        if len(extent) != len(whole.shape):
            raise ValueError(f"a piece of {tensor!r} has other dimensions")
        return Region(whole.shape, whole.pieces[part], extent)

    @property
    def names(self) -> list[str]:
        """The groups a reader may ask for: whole ones, and sharded ones as if they were whole."""
        parts = {part for record in self.sharded.values() for part in record.parts}
        return [g for g in self.groups if g not in parts] + list(self.sharded)

    def owner(self, group: str) -> str:
        """The group that a file's tensors belong to: itself, or the sharded one."""
        return next((n for n, r in self.sharded.items() if group in r.parts), group)

    @property
    def documents(self) -> list[str]:
        """The files that hold no tensors."""
        shards = {shard_name(group) for group in self.groups}
        return [name for name in self.files if name not in shards]


def seal(manifest_sha256: str) -> bytes:
    """The content of COMPLETE: the manifest's hash, then a hash that covers the first line.

    The second line tells a damaged seal from a damaged manifest.
    """
    line = f"{manifest_sha256}  {MANIFEST}\n".encode()
    return line + f"{sha256(line)}  {COMPLETE}\n".encode()


def sha256(content: bytes | memoryview) -> str:
    """Hash as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def shard_name(group: str) -> str:
    """The file that holds a group of tensors."""
    return f"{group}.safetensors"


def part_name(group: str, number: int, total: int) -> str:
    """The group of one process's file of a sharded group; processes count from 0."""
    return f"{group}-{number + 1:05d}-of-{total:05d}"


def step_name(step: int) -> str:
    """The directory of a step; names sort like numbers up to 99,999,999."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step that a directory's name states, if it states one."""
    match = _STEP.fullmatch(path.name)
    return int(match.group(1)) if match else None


def steps(folder: Path, *, complete: bool) -> list[Path]:
    """The step directories in ``folder`` that have (or lack) COMPLETE, oldest step first."""
    if not folder.is_dir():
        return []
    numbered = [(step, p) for p in folder.iterdir() if (step := step_of(p)) is not None]
    return [p for _, p in sorted(numbered) if p.is_dir() and (p / COMPLETE).exists() == complete]


def name_problem(groups: Iterable[str], documents: Iterable[str]) -> str | None:
    """Say which name could not be a file of a checkpoint, or None if all can.

    Names are ASCII letters, digits and ``._-``, in segments joined by ``/`` (groups: one
    segment), so that no name leaves the directory, hides in it or means two files.
    """
    taken = {MANIFEST, COMPLETE, UNSEALED}
    for kind, names in (("group", groups), ("document", documents)):
        for name in names:
            segments = name.split("/")
            if not all(map(_SEGMENT.fullmatch, segments)) or (kind == "group" and "/" in name):
                return (
                    f"{kind} name {name!r} is not a plain relative name: use letters, digits, ._-"
                )
            file = shard_name(name) if kind == "group" else name
            if file in taken:
                return f"{kind} name {name!r} is already the name of another file: choose another"
            taken.add(file)
    for name in sorted(taken):
        for parent in parents(name):
            if parent in taken:
                return f"document name {parent!r} is also a folder of {name!r}: choose another"
    return None


def parents(name: str) -> list[str]:
    """The folders above a relative name, nearest last: ``a/b/c`` gives ``a`` and ``a/b``."""
    segments = name.split("/")
    return ["/".join(segments[:i]) for i in range(1, len(segments))]


def folders(files: Mapping[str, object]) -> list[str]:
    """The folders that the named files need, outer ones first."""
    return sorted({parent for name in files for parent in parents(name)})
