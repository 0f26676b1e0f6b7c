"""A first pass over a corpus that counts its lines, for the step ``substrings: {corpus: true}``.

Two stages before ``read``. A unit of ``lines`` reads one range and does the steps that stand
before ``substrings``, so that lines are counted as that step will see them; it writes the distinct
hashes of its lines with the number of its rows that have each, in 256 parts by their first bits.
The one unit of ``repeated`` adds the counts up part by part and keeps the hashes of lines in more
rows than wanted. Neither holds more than one part, so memory is a 256th of what would be needed.

Files: ``values.bin`` uint64 and ``times.bin`` uint32, ascending by value, ``sketch-starts.npy``
int64 (257,): where the parts begin; of ``repeated`` ``lines.npy``, for ``line_counts.load``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data import line_counts
from modelwright.data.corpus.read import begun, complete, given
from modelwright.data.corpus.sketch import load, save
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.data.readers.reader import Bad, Passed
from modelwright.errors import ModelwrightError
from modelwright.kernels.text_stats import Hashes

LINES, REPEATED, ALL = "lines", "repeated", "all"
_VALUES, _TIMES, FILE = "values.bin", "times.bin", "lines.npy"


def plan_lines(read: Sequence[Unit]) -> list[Unit]:
    """Units of the stage ``lines``, one for each unit of read; none where no step asks for it.

    Raises:
        ModelwrightError: two steps ask for it.
    """
    planned = []
    for unit in read:
        steps = unit.arguments["steps"]
        asking = _asking(steps)
        if asking is None:
            return []
        named = {key: unit.arguments[key] for key in ("source", "reader", "input", "range")}
        arguments = named | {"steps": steps[:asking]}
        planned.append(replace(unit, stage=LINES, work=f"{__name__}:lines", arguments=arguments))
    return planned


def plan_repeated(units: Sequence[Unit], read: Sequence[Unit]) -> list[Unit]:
    """The one unit of the stage ``repeated``."""
    steps = read[0].arguments["steps"]
    names = [unit.name for unit in units]
    arguments = {"units": names, "rows": steps[_asking(steps)]["settings"]["rows"]}
    reads = tuple(f"{LINES}/{name}" for name in names)
    return [Unit(REPEATED, ALL, f"{__name__}:repeated", arguments, reads)]


def told(read: Sequence[Unit]) -> list[Unit]:
    """The units of read, told where the lines are that the corpus repeats."""
    file = unit_folder(Path(), REPEATED, ALL) / FILE
    return [
        replace(
            unit,
            arguments=unit.arguments | {"lines": file.as_posix()},
            reads=(*unit.reads, f"{REPEATED}/{ALL}:{FILE}"),
        )
        for unit in read
    ]


def _asking(steps: Sequence[dict[str, Any]]) -> Any:
    """The place of the step that asks for the pass, or None."""
    found = [i for i, step in enumerate(steps) if step["settings"].get("corpus") is True]
    if len(found) > 1:
        raise ModelwrightError(
            "steps: two of them ask for `corpus: true`; lines are counted once, leave it out of one"
        )
    return found[0] if found else None


def lines(arguments: dict[str, Any], out: Path) -> Facts:
    """Count the lines of one range: in how many of its rows each stands."""
    counted = {"rows": 0, "lines": 0}
    starts = [0]
    work = out / "work"
    work.mkdir()
    with (out / _VALUES).open("wb") as values_file, (out / _TIMES).open("wb") as times_file:
        for values, times in line_counts.tally(_texts(arguments, counted), work):
            values.astype("<u8").tofile(values_file)
            times.astype("<u4").tofile(times_file)
            starts.append(starts[-1] + len(values))
    work.rmdir()
    save(out, "starts", np.array(starts, np.int64))
    return counted | {"lines": starts[-1]}


def _texts(arguments: dict[str, Any], counted: dict[str, int]) -> Iterator[str]:
    """The texts of the rows that the steps before let pass."""
    steps = [step for _, step in begun(arguments)]
    for item in given(arguments):
        if isinstance(item, Bad | Passed):
            continue
        complete(item)
        try:
            left = any(step(item) is not None for step in steps)
        except (ModelwrightError, MemoryError, OSError):
            raise  # not the row's fault, see ``read``
        except Exception:  # noqa: S112 - ``read`` sets the row aside and says why
            continue
        text = item.get("text")
        if not left and isinstance(text, str):
            counted["rows"] += 1
            yield text


def repeated(arguments: dict[str, Any], out: Path) -> Facts:
    """Add up the counts of all units; keep the lines that are in more than ``rows`` rows."""
    folders = [unit_folder(Path(arguments[CORPUS]), LINES, unit) for unit in arguments["units"]]
    starts = [np.array(load(folder, "starts")) for folder in folders]
    found, distinct = [np.zeros(0, np.uint64)], 0
    for part in range(line_counts.BUCKETS):
        values, times = _part(folders, starts, part)
        distinct += len(values)
        found.append(values[times > arguments["rows"]])
    line_counts.save(np.concatenate(found), out / FILE)
    return {"lines": distinct, "repeated": sum(map(len, found))}


def _part(
    folders: Sequence[Path], starts: Sequence[NDArray[np.int64]], part: int
) -> tuple[Hashes, NDArray[np.int64]]:
    """Distinct hashes of one part, ascending, and their counts over all units."""
    values, times = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for folder, begins in zip(folders, starts, strict=True):
        begin, size = int(begins[part]), int(begins[part + 1] - begins[part])
        if size:
            values.append(np.fromfile(folder / _VALUES, "<u8", size, offset=8 * begin))
            counts = np.fromfile(folder / _TIMES, "<u4", size, offset=4 * begin)
            times.append(counts.astype(np.int64))
    distinct, place = np.unique(np.concatenate(values), return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, place, np.concatenate(times))
    return distinct, sums
