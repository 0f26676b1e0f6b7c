"""Code of your own: a Python file that a recipe names where it could name a module of a room.

Such a file is known by its name and the SHA-256 of its content, ``my_task.py@3f5a...``. That is
what recipes of runs and checkpoints say, so what ran is what runs again. Naming a file in a recipe
of one's own is what makes its code run: its content is then kept in a folder of the user's, and
only what lies there is ever run for a recipe of a run, a checkpoint, or anything that came from
elsewhere. What is not there is refused, until the user has read it and says ``modelwright trust``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.files import make_folder, rename, replace_file, write_file

# Keys of a recipe that may name a file, and what the file then gives.
PLACES = (
    ("data", "source"),
    ("codec", "kind"),
    ("model", "family"),
    ("train", "task"),
    ("train", "objective"),
    ("tune", "task"),
    ("tune", "objective"),
)
FOLDER = "extensions"  # of a run: the files that its recipe names
_REFERENCE = re.compile(r"([A-Za-z_][\w-]*)\.py@([0-9a-f]{64})")
_NAMED: dict[str, tuple[bytes, Path]] = {}  # by hash, what was named in this process


def is_reference(name: object) -> bool:
    """Whether a name stands for the content of a file: ``my_task.py@3f5a...``."""
    return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def short(name: str) -> str:
    """The name for people: a reference with the beginning of its hash."""
    return name[: name.index("@") + 13] if is_reference(name) else name


def own_name(cls: type) -> str:
    """The name by which a recipe finds a class: the last part of its module's, or a reference."""
    module = cls.__module__
    return module if is_reference(module) else module.rpartition(".")[2]


def copy_name(reference: str) -> str:
    """What the copy of a file is called in the folder of a run; no two contents share one."""
    stem, digest = _parts(reference)
    return f"{stem}-{digest[:12]}.py"


def references(recipe: Mapping[str, Any]) -> list[str]:
    """The files that the plain values of a recipe name, each once."""
    values = [str((recipe.get(part) or {}).get(key)) for part, key in PLACES]
    return sorted({value for value in values if is_reference(value)})


def named(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The values of the user's own recipe, with a reference in place of the path of each file.

    Args:
        values: of a recipe, as written.
        folder: of the recipe's file; a path is looked for there, and then in the working folder.

    Raises:
        ModelwrightError: a file is not there or cannot be read.
    """
    made = dict(values)
    for part, key in PLACES:
        section = made.get(part)
        name = section.get(key) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and isinstance(name, str) and name.endswith(".py"):
            made[part] = {**section, key: _named(name, folder, f"{part}.{key}")}
    return made


def _named(name: str, folder: Path, where: str) -> str:
    path = Path(name).expanduser()
    tried = [path] if path.is_absolute() else [folder / path, path]
    found = next((p for p in tried if p.is_file()), None)
    if found is None:
        near = did_you_mean(path.name, (p.name for p in tried[0].parent.glob("*.py")))
        raise ModelwrightError(f"{where}: {name}: no such file{near}; looked for as {tried[0]}")
    return trust(found)


def trust(path: Path) -> str:
    """Let the code of a file run for this user from now on; its reference.

    Raises:
        ModelwrightError: it cannot be read, or its name is not one of a module.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(content).hexdigest()
    reference = f"{path.name}@{digest}"
    if not is_reference(reference):
        raise ModelwrightError(f"{path}: no name for code; call it like my_task.py")
    _NAMED[digest] = content, path
    if _kept(digest) is None:
        _keep(digest, content)
    return reference


def _keep(digest: str, content: bytes) -> None:
    """Write a file to the user's store; without a home it is known to this process alone."""
    with contextlib.suppress(OSError, RuntimeError):
        store = _store()
        make_folder(store.parent)
        store.mkdir(mode=0o700, exist_ok=True)
        fresh = store / f"{digest}.{os.getpid()}.tmp"  # others may write the same now
        fresh.unlink(missing_ok=True)
        write_file(fresh, [content])
        rename(fresh, store / f"{digest}.py")


def _kept(digest: str) -> tuple[bytes, Path] | None:
    """What the user's store has of a hash, and where, if it is that still."""
    with contextlib.suppress(OSError, RuntimeError):
        kept = _store() / f"{digest}.py"
        content = kept.read_bytes()
        if hashlib.sha256(content).hexdigest() == digest:
            return content, kept
    return None


def write_copies(recipe: Mapping[str, Any], folder: Path) -> None:
    """Keep the files that a recipe names in the folder of its run, as they were."""
    for reference in references(recipe):
        copy = folder / FOLDER / copy_name(reference)
        if not copy.exists():
            make_folder(copy.parent)
            replace_file(copy, _content(reference)[0])


def trust_copies(expected: list[str], folder: Path) -> None:
    """Trust the copies of a run that the first of several processes has just made.

    Raises:
        ModelwrightError: a copy is not the file that was expected.
    """
    for reference in expected:
        copy = folder / FOLDER / copy_name(reference)
        if _parts(trust(copy))[1] != _parts(reference)[1]:
            raise ModelwrightError(f"{copy}: is not {short(reference)}; start the run again")


def member(reference: str, name: str, use: str) -> Any:
    """What the file of a reference calls ``name``.

    Raises:
        ModelwrightError: it has none, is not trusted, or fails when it is imported.
    """
    module = load(reference)
    if not hasattr(module, name):
        raise ModelwrightError(f"{module.__file__}: defines no {name}, which {use} needs; add it")
    return getattr(module, name)


def load(reference: str) -> ModuleType:
    """The module of a file that the user has named or trusted, imported once.

    Raises:
        ModelwrightError: this user has never named it in a recipe, or it fails.
    """
    if reference in sys.modules:
        return sys.modules[reference]
    content, path = _content(reference)
    loader = _Loader(content, path)
    spec = importlib.util.spec_from_file_location(reference, path, loader=loader)
    assert spec is not None  # noqa: S101 - a loader was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[reference] = module  # before: dataclasses look their module up
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[reference]
        if not isinstance(error, Exception) or isinstance(error, ModelwrightError):
            raise
        raise ModelwrightError(f"{_place(path, error)} ({type(error).__name__})") from error
    return module


class _Loader(importlib.abc.ExecutionLoader):
    """Imports bytes that were read and hashed already, whatever the file says by now."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content, self.path = content, path

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002
        return str(self.path)

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        return importlib.util.decode_source(self.content)

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002 - its name may hold a dot
        return False


def _content(reference: str) -> tuple[bytes, Path]:
    """The bytes of a reference and where they lie, if this user may run them."""
    _, digest = _parts(reference)
    found = _NAMED.get(digest) or _kept(digest)
    if found is not None:
        return found
    raise ModelwrightError(
        f"{short(reference)}: is code that no recipe of yours has named; read "
        f"{FOLDER}/{copy_name(reference)} of the run, then allow it: `modelwright trust FILE`"
    )


def _parts(reference: str) -> tuple[str, str]:
    """The stem of the file's name, and the hash."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelwrightError(f"{reference[:100]}: names no file of code; name it as ./my_task.py")
    return match[1], match[2]


def _store() -> Path:
    """The folder of what this user has named or trusted; nobody else can write there."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "modelwright" / FOLDER


def _place(path: Path, error: Exception) -> str:
    """File, line and what is wrong, of an error at import."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}: {error.msg}"
    lines: Iterator[int | None] = (
        frame.lineno
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if frame.filename == str(path)
    )
    said = " ".join(str(error).split())[:300]
    return f"{path}:{next(lines, 1)}: {said}"
