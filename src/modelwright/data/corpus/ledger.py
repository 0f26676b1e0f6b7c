"""The commits of a corpus: which units have happened, and what they left.

A unit's files are written in a temporary folder, flushed, and renamed into place; only then is
its commit record made, and never over another one. Readers ask for commits and never look what
folders there are: what a killed run left half done has no commit, so it does not exist.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwright import files
from modelwright.data.corpus.marks import canonical
from modelwright.data.corpus.unit import Commit, commit_path, unit_folder
from modelwright.errors import CorruptError, MachineError

Refused = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)  # a disk without hard links


@contextmanager
def locked(corpus: Path) -> Iterator[None]:
    """Hold a corpus for writing; what killed attempts left is cleared away.

    Raises:
        MachineError: another process works on it.
    """
    files.make_folder(corpus)
    with (corpus / "lock").open("a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(
                f"{corpus}: another `modelwright data run` works on it; wait for it, or stop it"
            ) from None
        clear_attempts(corpus)
        try:
            yield
        finally:
            clear_attempts(corpus)


def clear_attempts(corpus: Path) -> None:
    """Remove the temporary folders of attempts."""
    shutil.rmtree(corpus / "tmp", ignore_errors=True)


def read_commit(corpus: Path, stage: str, name: str) -> Commit | None:
    """The commit of a unit, or None where it has not happened."""
    path = commit_path(corpus, stage, name)
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
        return Commit(**stored)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CorruptError(
            f"{path}: damaged commit record ({error}); delete it and run again"
        ) from error


def committed(corpus: Path, reference: str) -> Commit:
    """The commit of "stage/name", which must be there.

    Raises:
        CorruptError: there is none.
    """
    stage, _, name = reference.partition("/")
    found = read_commit(corpus, stage, name)
    if found is None:
        raise CorruptError(
            f"{corpus}: unit {reference} is not finished; run `modelwright data run`"
        )
    return found


def whole(corpus: Path, stage: str, commit: Commit) -> bool:
    """Whether the files of a commit are still there; their content is checked when read."""
    folder = unit_folder(corpus, stage, commit.unit)
    return folder.is_dir() and all((folder / name).is_file() for name in commit.files)


def publish(corpus: Path, stage: str, commit: Commit, attempt: Path) -> None:
    """Put the flushed files of an attempt in their place, then commit them.

    A kill at any point leaves the old commit with its files, no commit, or the new one.
    """
    place, record = unit_folder(corpus, stage, commit.unit), commit_path(corpus, stage, commit.unit)
    files.make_folder(place.parent)
    if record.exists():
        record.unlink()
        files.sync_folder(record.parent)
    shutil.rmtree(place, ignore_errors=True)
    attempt.rename(place)
    files.sync_folder(place.parent)
    stored = {"unit": commit.unit, "mark": commit.mark, "files": commit.files}
    _exclusive(record, canonical(stored | {"facts": commit.facts}) + b"\n", corpus / "tmp")


def _exclusive(path: Path, content: bytes, scratch: Path) -> None:
    """Create a file whole, and only where there is none."""
    fresh = scratch / f"{path.parent.name}.{path.name}"
    fresh.unlink(missing_ok=True)
    files.write_file(fresh, [content])
    try:
        os.link(fresh, path)
        fresh.unlink()
    except OSError as error:
        if error.errno not in Refused:
            raise
        fresh.rename(path)  # we hold the lock, so nobody else commits
    files.sync_folder(path.parent)


def prune(corpus: Path, stage: str, names: Collection[str]) -> None:
    """Remove what a stage holds beside the units ``names``: of other settings, or half done."""
    folder = corpus / "stages" / stage
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda p: not p.name.endswith(".json")):
        if path.name.removesuffix(".json") in names:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()  # records go before their folders, see the order


def write_timing(corpus: Path, stage: str, name: str, timing: dict[str, Any]) -> None:
    """Keep what a unit took; nothing depends on it, so it is not flushed."""
    folder = corpus / "timing" / stage
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(timing, sort_keys=True) + "\n")
