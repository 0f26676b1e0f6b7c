"""Writers of records: one small protocol, one member a file, found by module name.

A writer takes what a step gave and keeps it or sends it somewhere. ``jsonl`` is the truth and
always written; the rest copy it. A member whose ``library`` is named is a tracker: it is imported
only when a recipe asks for it, and works behind a queue (``background.py``), so that whatever it
does, training goes on as if it were not there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelwright.errors import MachineError
from modelwright.training.observe.background import Background

PROJECT = "modelwright"  # what trackers group runs by, unless the environment names another

Say = Callable[[str], None]


class Writer(Protocol):
    """Keeps or sends the records of one stage."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Take one record: ``values["step"]`` and numbers, or one level of named numbers."""
        ...

    def close(self) -> None:
        """Write what is left; nothing follows."""
        ...


@dataclass(frozen=True)
class Place:
    """The stage whose records are written: of ``run``, going on after step ``first``."""

    run: Path
    stage: str
    first: int

    @property
    def title(self) -> str:
        """What a tracker calls the stage."""
        return f"{self.run.resolve().name}-{self.stage}"

    @property
    def key(self) -> str:
        """The same for the same stage of the same directory, so that a resumed run goes on."""
        text = f"{self.run.resolve()}\x1f{self.stage}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def names() -> list[str]:
    """The module names of all writers."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a record beside its step: ``loss``, ``validation/loss``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, number in numbers(value):
                yield f"{name}/{inner}", number
        elif isinstance(value, int | float) and name != "step":
            yield name, value


def require(chosen: Sequence[str]) -> None:
    """Check that the libraries of these writers are there.

    Raises:
        MachineError: one is missing; the line has the command that installs it.
    """
    for name in chosen:
        library = _module(name).library
        if library and importlib.util.find_spec(library) is None:
            raise MachineError(
                f"watch.writers: {name} is not installed; pip install 'modelwright[{name}]', or "
                "leave it out"
            )


def open_writer(name: str, place: Place) -> Writer:
    """The writer ``name``: a tracker behind its own queue, any other at work at once."""
    require([name])
    module = _module(name)
    if not module.library:
        made: Writer = module.Writer(place)
        return made
    for key, value in module.environment.items():
        os.environ.setdefault(key, value)
    return Background(name, lambda: module.Writer(place))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
