"""One attempt at a unit, the same in this process, in a worker of a pool and on a cluster."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright import files
from modelwright.data.corpus.marks import blake_file
from modelwright.data.corpus.unit import CORPUS, TIMING, Unit, Work
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.processor import peak_resident_bytes

Task = dict[str, Any]  # a unit as JSON: work, arguments, folder, corpus, name
Outcome = dict[str, Any]  # files, facts, timing; or error and kind
_KINDS: Mapping[str, type[ModelwrightError]] = {
    "usage": ModelwrightError,
    "corrupt": CorruptError,
    "machine": MachineError,
}

# One thread a worker: the cores are shared out between workers, and sums keep their order.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def task(unit: Unit, corpus: Path, number: int) -> Task:
    """An attempt at a unit as plain JSON; ``number`` keeps the folders of attempts apart."""
    name = f"{unit.stage}.{unit.name}.{os.getpid()}.{number}"
    return {
        "name": f"{unit.stage}/{unit.name}",
        "work": unit.work,
        "arguments": unit.arguments | unit.aside | {CORPUS: str(corpus)},
        "folder": str(corpus / "tmp" / name),
    }


def attempt(given: Task) -> Outcome:
    """Do a unit's work in its temporary folder, and flush what it wrote.

    Returns:
        ``files`` (name -> hash), ``facts`` and ``timing``; or ``error`` (one line) and ``kind``.
        Nothing is raised: the outcome crosses processes and machines as JSON.
    """
    folder = Path(given["folder"])
    started, cpu = time.perf_counter(), _processor_seconds()
    try:
        folder.mkdir()
        module, _, function = given["work"].partition(":")
        work: Work = getattr(importlib.import_module(module), function)
        facts = work(given["arguments"], folder)
        timing = facts.pop(TIMING, {})
        timing |= {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": _processor_seconds() - cpu,
            "peak_bytes": peak_resident_bytes(),
        }
        written = {path.relative_to(folder).as_posix(): path for path in _flushed(folder)}
        hashes = {name: blake_file(path) for name, path in written.items()}
        timing["written_bytes"] = sum(path.stat().st_size for path in written.values())
        # What JSON cannot hold fails here, with the unit's name, and equally on every engine.
        said: dict[str, Any] = json.loads(json.dumps(facts, allow_nan=False))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        return _said(given, error)
    return {"files": hashes, "facts": said, "timing": timing}


def failure(given: Task, outcome: Outcome) -> ModelwrightError:
    """The error that a failed attempt stands for."""
    made = _KINDS[outcome["kind"]]
    return made(
        outcome["error"] if outcome.get("plain") else f"{given['name']}: {outcome['error']}"
    )


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a disk or quota that is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):  # as libraries in C++ say it
            return True
        error = error.__cause__ or error.__context__
    return False


def full(place: Path) -> MachineError:
    """What is said when the disk is full."""
    return MachineError(
        f"{place}: the disk is full; make room, then give the same command again: what is finished"
        " is kept"
    )


def _said(given: Task, error: Exception) -> Outcome:
    if disk_full(error):
        corpus = Path(given["arguments"][CORPUS])
        return {"error": str(full(corpus)), "kind": "machine", "plain": True}
    if isinstance(error, MemoryError):
        return {"error": "out of memory; give fewer --workers", "kind": "machine"}
    if isinstance(error, ModelwrightError):
        kind = next(k for k in ("machine", "corrupt", "usage") if isinstance(error, _KINDS[k]))
        return {"error": str(error), "kind": kind}
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = " ".join(str(error).split())
    where = f"{Path(place.filename).name}:{place.lineno}"
    kind = "machine" if isinstance(error, OSError) else "usage"
    return {"error": f"{type(error).__name__}: {line} ({where})", "kind": kind}


def _flushed(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order, flushed to the disk with the folders that name it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _flushed(path)
        else:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield path
    files.sync_folder(folder)


def _processor_seconds() -> float:
    """Processor time of this process and its children: steps such as ``extract`` work in one."""
    import resource  # noqa: PLC0415 - POSIX only

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = time.process_time() + ended.ru_utime + ended.ru_stime
    tick = os.sysconf("SC_CLK_TCK")
    proc = Path("/proc")
    for at in proc.iterdir() if proc.is_dir() else ():  # no glob: it fails at one that just ended
        if not at.name.isdigit():
            continue
        try:
            fields = (at / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == os.getpid():
            spent += (int(fields[11]) + int(fields[12])) / tick
    return spent
