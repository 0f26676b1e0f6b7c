"""Writing a model of ours as a published checkpoint, in the hub's layout.

The tensors take the names and shapes of the family's layout, the same list by which they are
read. Files are written into a folder that the caller names when all of it has been checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.files import sync_folder, write_file
from modelwright.hub.files import INDEX, WEIGHTS
from modelwright.hub.names import Entry, Family
from modelwright.models.model import ModelConfig

SHARD = 5 * 10**9  # bytes of a file at most, unless one tensor is larger
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write(
    folder: Path,
    model: nn.Module,
    config: ModelConfig,
    family: Family,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD,
    settings: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write config.json, the weights and other files into an empty folder.

    Args:
        folder: there already, and empty.
        model: its parameters, on any device.
        config: of the model.
        family: which names the tensors.
        dtype: of floating-point tensors; None: as they are.
        shard_bytes: of a weight file at most; more than one gets an index.
        settings: further fields of config.json; the family's own are not replaced, but for the
            names of the labels where there are as many.
        files: name -> content of further files.

    Raises:
        ModelwrightError: the layout does not cover the model.
    """
    layout = family.layout(config)
    stored = list(_placed(model, layout.entries))
    shards = _shards(stored, model, dtype, shard_bytes)
    names = [
        WEIGHTS if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        for i in range(len(shards))
    ]
    total, where = 0, dict[str, str]()
    for file, group in zip(names, shards, strict=True):
        tensors = {theirs: _assembled(model, entries, dtype) for theirs, entries in group}
        total += sum(t.numel() * t.itemsize for t in tensors.values())
        where |= dict.fromkeys(tensors, file)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        with (folder / file).open("rb+") as stream:
            os.fsync(stream.fileno())
    given = settings or {}
    made = {**given, **family.config_to(config)}
    if len(made.get("id2label", ())) == len(given.get("id2label", ())):
        made |= {k: given[k] for k in ("id2label", "label2id") if k in given}
    made["dtype"] = str(dtype or _dtype(model)).removeprefix("torch.")
    documents = {"config.json": _json(made), **(files or {})}
    if len(shards) > 1:
        documents[INDEX] = _json({"metadata": {"total_size": total}, "weight_map": where})
    for name, content in documents.items():
        write_file(folder / name, [content])
    sync_folder(folder)


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


Placed = tuple[str, Sequence[Entry]]  # a stored name, and what of ours it holds


def _placed(model: nn.Module, entries: Sequence[Entry]) -> Iterator[Placed]:
    """Every stored tensor once, with the entries that it is made of."""
    state = model.state_dict(keep_vars=True)
    named = {id(state[e.ours]) for e in entries if e.ours in state}
    if left := [name for name, tensor in state.items() if id(tensor) not in named]:
        raise ModelwrightError(
            f"export: the layout does not say where {left[0]} is stored ({len(left)} tensors)"
        )
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.ours not in state:
            raise ModelwrightError(f"export: the layout names {entry.ours}, which is not there")
        groups.setdefault(entry.theirs, []).append(entry)
    for theirs, parts in groups.items():
        joined = sorted((e for e in parts if e.part is not None), key=lambda e: e.part or (0, 0))
        yield theirs, joined or parts[:1]  # of tied names the first


def _shards(
    stored: Sequence[Placed], model: nn.Module, dtype: torch.dtype | None, limit: int
) -> list[list[Placed]]:
    """The stored tensors in files of at most ``limit`` bytes."""
    state = model.state_dict()
    shards: list[list[Placed]] = [[]]
    filled = 0
    for theirs, entries in stored:
        size = 0
        for entry in entries:
            tensor = state[entry.ours]
            item = dtype.itemsize if dtype and tensor.is_floating_point() else tensor.itemsize
            size += tensor.numel() * item
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append((theirs, entries))
        filled += size
    return shards


def _assembled(model: nn.Module, entries: Sequence[Entry], dtype: torch.dtype | None) -> Tensor:
    """A stored tensor of the tensors of ours that it holds."""
    state = model.state_dict()
    pieces = []
    for entry in entries:
        tensor = state[entry.ours].detach().cpu()
        if entry.offset:
            tensor = tensor.float() - entry.offset
        if entry.transposed:
            tensor = tensor.t()
        if entry.shape is not None and entry.part is None:
            tensor = tensor.reshape(entry.shape)
        pieces.append(tensor)
    whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=entries[0].axis)
    if dtype is not None and whole.is_floating_point():
        whole = whole.to(dtype)
    elif entries[0].offset:
        whole = whole.to(state[entries[0].ours].dtype)
    return whole.contiguous()
