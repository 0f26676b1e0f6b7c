"""Writing a checkpoint: a fresh directory, every byte on the disk, and only then its seal.

The order is what makes a crash harmless: files are flushed, then their directories, then the
seal is written under another name and flushed, then renamed, then its directory is flushed. At
every moment before the rename the directory does not count; after it, all of it is there. Older
checkpoints are touched last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from modelwright import files
from modelwright.checkpoint.layout import (
    COMPLETE,
    DTYPE_NAMES,
    MANIFEST,
    UNSEALED,
    FileRecord,
    GroupRecord,
    Manifest,
    TensorRecord,
    folders,
    name_problem,
    seal,
    sha256,
    shard_name,
    step_name,
    step_of,
    steps,
)
from modelwright.checkpoint.loading import verify
from modelwright.errors import MachineError, ModelwrightError

_BLOCK = 4096  # a file takes whole blocks of the disk, a directory at least one
_UNKNOWN = "0" * 64  # stands for a hash while only sizes are known
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Groups = Mapping[str, Mapping[str, Tensor]]
Documents = Mapping[str, bytes]


def save(folder: Path, step: int, tensors: Groups, documents: Documents, *, keep: int = 2) -> Path:
    """Write ``folder/step-<step>``; when it returns, the checkpoint survives a power cut.

    Args:
        folder: the directory of a run's checkpoints, created when missing.
        step: optimizer steps done so far.
        tensors: group -> name -> tensor, on any device; one safetensors file a group. Names
            of one and the same tensor (tied weights) are stored once and restored tied.
        documents: relative name (``state.json``, ``codec/tokenizer.json``) -> content.
        keep: complete checkpoints to keep, this one included, at least 2. Older ones are
            removed only once this one is complete.

    Returns:
        The new step directory.

    Raises:
        MachineError: the disk is full or refuses; nothing is left of this save, and the
            checkpoint before it is untouched.
        ModelwrightError: a name or tensor that cannot be stored, or a sound checkpoint of this
            step already exists. A damaged one is set aside as ``corrupt-step-...``.
    """
    if keep < 2 or step < 0:
        raise ModelwrightError(
            f"cannot save step {step} with keep={keep}: use step >= 0, keep >= 2"
        )
    if problem := name_problem(tensors, documents):
        raise ModelwrightError(f"{folder}: {problem}")
    manifest = _plan(folder, step, tensors, documents)
    path = folder / step_name(step)
    needed = _bytes_on_disk(manifest)
    try:
        files.make_folder(folder)
        _clear(path)
        if files.free_bytes(folder) < needed:
            raise OSError(errno.ENOSPC, "No space left on device")
        _write(path, manifest, tensors, documents)
    except OSError as error:
        raise MachineError(_refused(path, needed, error)) from error
    _prune(folder, step, keep)
    return path


def _plan(folder: Path, step: int, tensors: Groups, documents: Documents) -> Manifest:
    """The manifest with every size and no hash yet: enough to know the space and the headers."""
    groups = {group: _plan_group(folder, group, named) for group, named in tensors.items()}
    sizes = {shard_name(group): record.nbytes for group, record in groups.items()}
    sizes |= {name: len(content) for name, content in documents.items()}
    records = {n: FileRecord(bytes=size, sha256=_UNKNOWN) for n, size in sizes.items()}
    return Manifest(step=step, files=records, groups=groups)


def _plan_group(folder: Path, group: str, named: Mapping[str, Tensor]) -> GroupRecord:
    records: dict[str, TensorRecord] = {}
    aliases: dict[str, str] = {}
    first: dict[object, str] = {}
    # Wide types first: then every tensor starts at a multiple of its own item size.
    for name, tensor in sorted(named.items(), key=lambda item: (-item[1].itemsize, item[0])):
        place = f"{folder}: tensor {name!r} of {group!r}"
        if name == "__metadata__" or not name.isprintable():
            raise ModelwrightError(f"{place} has a name that safetensors cannot hold: rename it")
        if tensor.dtype not in DTYPE_NAMES or tensor.layout != torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
            raise ModelwrightError(f"{place} cannot be stored ({kind}): make it a dense tensor")
        if (memory := _memory(tensor)) in first:
            aliases[name] = first[memory]
            continue
        if tensor.numel():
            first[memory] = name
        dtype, shape = DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)
        records[name] = TensorRecord(dtype=dtype, shape=shape, sha256=_UNKNOWN)
    return GroupRecord(tensors=records, aliases=aliases)


def _memory(tensor: Tensor) -> object:
    """What two names have in common exactly when they are one tensor."""
    form = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return tensor.device, tensor.data_ptr(), form


def _bytes_on_disk(manifest: Manifest) -> int:
    sizes = [record.bytes for record in manifest.files.values()]
    sizes += [len(manifest.encode()), len(seal(_UNKNOWN))]
    directories = 1 + len(folders(manifest.files))
    return sum(-(-size // _BLOCK) * _BLOCK for size in sizes) + directories * _BLOCK


def _write(path: Path, manifest: Manifest, tensors: Groups, documents: Documents) -> None:
    """Write the directory and its seal; whatever goes wrong, nothing of it stays."""
    path.mkdir()  # fails if anything is there: a checkpoint never mixes two saves
    try:
        inner = [path / name for name in folders(manifest.files)]
        for folder in inner:
            files.make_folder(folder)
        records: dict[str, FileRecord] = {}
        groups: dict[str, GroupRecord] = {}
        for group, named in tensors.items():
            file = shard_name(group)
            records[file], groups[group] = _write_shard(path / file, manifest.groups[group], named)
        for name, content in documents.items():
            files.write_file(path / name, [content])
            records[name] = FileRecord(bytes=len(content), sha256=sha256(content))
        content = Manifest(step=manifest.step, files=records, groups=groups).encode()
        files.write_file(path / MANIFEST, [content])
        for folder in [*inner, path, path.parent]:
            files.sync_folder(folder)
        files.write_file(path / UNSEALED, [seal(sha256(content))])
        files.rename(path / UNSEALED, path / COMPLETE)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(path)
        raise


def _write_shard(
    file: Path, plan: GroupRecord, named: Mapping[str, Tensor]
) -> tuple[FileRecord, GroupRecord]:
    """Write one safetensors file, hashing the very memory that is written."""
    whole = hashlib.sha256()
    hashed: dict[str, TensorRecord] = {}

    def chunks() -> Iterator[bytes | memoryview]:
        header = plan.header()
        whole.update(header)
        yield header
        for name, record in plan.tensors.items():
            data = _data(named[name])
            whole.update(data)
            hashed[name] = record.model_copy(update={"sha256": sha256(data)})
            yield data

    files.write_file(file, chunks())
    record = FileRecord(bytes=plan.nbytes, sha256=whole.hexdigest())
    return record, GroupRecord(tensors=hashed, aliases=plan.aliases)


def _data(tensor: Tensor) -> memoryview:
    """The tensor's bytes in row order; copied only where it is not already laid out so."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # Not reshape(-1): an empty or one-element tensor may call itself contiguous at any stride.
    flat = dense.as_strided((dense.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _clear(path: Path) -> None:
    """Make room for a fresh directory: a sound checkpoint stays, a damaged one moves aside."""
    if not path.is_dir():
        return
    if not (path / COMPLETE).exists():
        _remove(path)
    elif verify(path):
        aside = path.with_name(f"corrupt-{path.name}")
        count = 1
        while aside.exists():
            count += 1
            aside = path.with_name(f"corrupt-{path.name}-{count}")
        files.rename(path, aside)
    else:
        raise ModelwrightError(
            f"{path}: is already a complete checkpoint of this step and is never overwritten; "
            "resume from it, or save into another folder"
        )


def _prune(folder: Path, step: int, keep: int) -> None:
    """Remove what the new checkpoint supersedes: older complete ones and dead attempts.

    Steps above the new one do not count: they can only be there when they were passed over as
    damaged, and must not push out good ones. A failure to remove is no failure to save; the
    next save tries again.
    """
    done = [p for p in steps(folder, complete=True) if (step_of(p) or 0) <= step]
    dead = [p for p in steps(folder, complete=False) if (step_of(p) or 0) < step]
    for path in [*done[:-keep], *dead]:
        with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a step directory, its seal first: a half-removed checkpoint never looks whole."""
    (path / COMPLETE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a full disk may refuse the flush, and still delete
        files.sync_folder(path)
    shutil.rmtree(path)


def _refused(path: Path, needed: int, error: OSError) -> str:
    done = steps(path.parent, complete=True)
    last = next((p for p in reversed(done) if not verify(p)), None)  # read: it is called good
    kept = (
        f"the last good checkpoint {last} is kept" if last else "no sound earlier checkpoint exists"
    )
    if error.errno not in _FULL:
        why = f"cannot write checkpoint {path}: {error.strerror}"
        return f"{why}; {kept}; repair that and run the same command again to resume"
    existing = next(p for p in path.absolute().parents if p.exists())
    free = files.free_bytes(existing)
    why = f"no room for checkpoint {path}: {error.strerror}"
    sizes = f"needs {needed:,} bytes, {free:,} bytes are free"
    return f"{why} ({sizes}); {kept}; free some space and run the same command again to resume"
