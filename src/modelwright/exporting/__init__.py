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
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.exporting.subject import Options, Subject
from modelwright.hub.replay import Replayed

__all__ = ["Format", "Options", "Replayed", "Subject", "format_named", "formats"]

_SHARED = {"subject", "front", "samples", "scanned", "usage", "keras_layers"}


class Format(Protocol):
    """A module of this folder."""

    def write(self, folder: Path, subject: Subject, options: Options) -> None:
        """Write the artefact into an empty folder."""

    def check(self, folder: Path, subject: Subject, options: Options) -> Replayed:
        """Prove that the artefact answers as the trained model does."""


def formats() -> list[str]:
    """The names that ``--to`` takes; nothing is imported."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n.replace("_", "-") for n in found if n not in _SHARED)


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
