"""What a unit's result depends on, as one hash: its code, its arguments, and what it reads.

Nothing else enters: not the number of workers, not the engine, not where the corpus lies. A mark
is made of content, so a unit upstream that was done again with the same result changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from modelwright.data.corpus.unit import Commit, Unit

FORM = 1  # raised when commits or folders of units get another form
_ROOMS = ("modelwright.data.", "modelwright.kernels.")


def blake(content: bytes) -> str:
    """BLAKE2b of some bytes, 16 bytes as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def blake_file(path: Path) -> str:
    """BLAKE2b of a file's content, as ``blake``."""
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()


def canonical(value: Any) -> bytes:
    """A JSON value as the same bytes always: keys sorted, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def content(commit: Commit) -> str:
    """The hash of what a unit wrote and returned."""
    return blake(canonical({"files": commit.files, "facts": commit.facts}))


def mark(unit: Unit, upstream: Mapping[str, str]) -> str:
    """The mark of a unit.

    Args:
        unit: the unit.
        upstream: "stage/name" -> ``content`` of every commit that ``unit.reads`` names.
    """
    parts = {
        "form": FORM,
        "work": unit.work,
        "code": code_hash(unit.work.partition(":")[0]),
        "arguments": unit.arguments,
        "reads": {name: upstream[name] for name in unit.reads},
    }
    return blake(canonical(parts))


@cache
def code_hash(module: str) -> str:
    """The hash of a module's source, and of all modules of data and kernels that it imports.

    Of a kernel its C++ counts as well, though Python would give the same: it may have been wrong.
    Readers and operations are imported by name and are therefore not found here; their versions
    and settings are arguments of the units that use them.
    """
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        found = importlib.util.find_spec(name) if name not in sources else None
        if found is None or found.origin is None:
            continue
        source = Path(found.origin).read_bytes()
        sources[name] = blake(source)
        if (native := Path(found.origin).with_suffix(".cpp")).is_file():
            sources[f"{name}.cpp"] = blake(native.read_bytes())
        waiting += [n for n in _imports(source) if n.startswith(_ROOMS)]
    return blake(canonical(sources))


def _imports(source: bytes) -> list[str]:
    """The modules that a source imports, at its top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith(_ROOMS) and _is_module(name)]


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # "module.function": the parent is no package
        return False
