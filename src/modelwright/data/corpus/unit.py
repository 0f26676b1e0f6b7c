"""A unit of work: what every stage of a corpus is cut into, and the only thing that is run.

A unit is a module-level function with plain arguments. It writes files into a folder of its own
and returns facts; it reads only what its arguments name. The same arguments give the same bytes,
whoever runs it, wherever, how often: that is why one process, many, and a Ray cluster end with
the same corpus, and why a unit that was killed is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Facts = dict[str, Any]  # JSON values: counts, histograms, hashes
Work = Callable[[dict[str, Any], Path], Facts]  # (arguments, folder to write into) -> facts

CORPUS = "corpus"  # the argument that the engine adds: the corpus folder, absolute
TIMING = "timing"  # the key of facts that is not reproducible: kept apart, outside every hash


@dataclass(frozen=True)
class Unit:
    """One piece of a stage.

    Attributes:
        stage: the stage it belongs to, such as "read"; a folder of the corpus.
        name: its name within the stage, made from what it works on, never from who works.
        work: the function, as "package.module:name" of this package.
        arguments: its arguments, JSON values only; paths are relative to the corpus folder.
        reads: the units whose files or facts it reads, as "stage/name", or a single file of
            one, as "stage/name:file"; what is named is part of this unit's mark, so it is done
            again when that has changed.
        aside: further arguments that are no part of the mark because they change nothing in what
            is written: where an input lies, how much memory may be used.
        bytes: size of what it works on, for progress and for starting long units first.
    """

    stage: str
    name: str
    work: str
    arguments: dict[str, Any]
    reads: tuple[str, ...] = ()
    aside: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True)
class Commit:
    """The record of a finished unit; a unit without one has not happened.

    What a unit returns under ``timing`` (seconds, rates) is not in here but in
    ``timing/STAGE/NAME.json`` of the corpus: it differs from run to run, and this does not.

    Attributes:
        unit: its name.
        mark: BLAKE2 hash of function, code, arguments and the commits it reads from.
        files: file name -> BLAKE2 hash of what it wrote, names relative to the unit's folder.
        facts: what it returned, less ``timing``.
    """

    unit: str
    mark: str
    files: dict[str, str]
    facts: Facts


def unit_folder(corpus: Path, stage: str, name: str) -> Path:
    """Where the files of a finished unit lie."""
    return corpus / "stages" / stage / name


def commit_path(corpus: Path, stage: str, name: str) -> Path:
    """The file of a unit's commit record."""
    return corpus / "stages" / stage / f"{name}.json"
