"""Artefacts for other programs, a format a file, each proved equal before it gets its name.

A format is a module of this folder with

- ``write(folder, subject, options)``: the files, beside nothing else;
- ``check(folder, subject, options) -> Replayed``: reads the files as their users' programs do,
  sends the stored samples through them, from text or pixels on, and raises a ModelwrightError
  that names the sample, and the layer where one can be named, when an answer differs;
- and, if it likes, ``usage(subject)``: Markdown for the card, how to run it without this package,
  ``LIBRARY``, the hub's name of the library that reads it, and ``ADAPTER = True`` where it takes
  ``Subject.tuned``.

The name on the command line is the module's, with dashes.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from modelwright.errors import ModelwrightError, did_you_mean

if TYPE_CHECKING:  # whoever asks for the names need not wait for torch
    from modelwright.exporting.subject import Options, Subject
    from modelwright.hub.replay import Replayed

__all__ = ["Format", "format_named", "formats"]


class Format(Protocol):
    """A module of this folder."""

    def write(self, folder: Path, subject: Subject, options: Options) -> None:
        """Write the artefact into an empty folder."""

    def check(self, folder: Path, subject: Subject, options: Options) -> Replayed:
        """Prove that the artefact answers as the trained model does."""


def formats() -> list[str]:
    """The names that ``--to`` takes, of the files here that have ``write``; none is imported."""
    here = Path(__file__).parent
    modules = [(path.stem, path) for path in here.glob("*.py")]
    modules += [(path.parent.name, path) for path in here.glob("*/__init__.py")]
    writes = re.compile(r"^def write\(", re.MULTILINE)
    found = (name for name, path in modules if writes.search(path.read_text(encoding="utf-8")))
    return sorted(name.replace("_", "-") for name in found)


def format_named(name: str) -> Format:
    """A format by its name.

    Raises:
        ModelwrightError: there is none of this name.
    """
    if name not in formats():
        hint = did_you_mean(name, formats())
        raise ModelwrightError(
            f"--to: {name!r} is no format{hint}; there are {', '.join(formats())}"
        )
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return cast(Format, module)
