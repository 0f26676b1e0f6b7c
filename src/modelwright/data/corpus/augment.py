"""The unit ``augment``: further views of the train rows of a ``write`` unit.

A view's id is that of its origin and "~1", "~2", ...; its ``parents`` name the origin, its groups
are the same. Validation and test have none. Files: ``rows-00000.parquet`` (``records.FINAL``).
Facts: ``in``, the train rows; ``made``, the views (rows and checksum of ids); ``unchanged``, the
rows that no transform is for, or that came out as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.augment import Line, chain, generator, rows, transform_class
from modelwright.data.corpus import records
from modelwright.data.corpus.marks import code_hash
from modelwright.data.corpus.tally import Ids, id_hash
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.data.corpus.write import ROWS
from modelwright.data.operations.operation import WorkRow
from modelwright.errors import ModelwrightError

COPIES = "copies"  # a line of its own: how many views of each row, 1 where it is left out
_MOST = 1000


def lines_of(settings: Sequence[Line]) -> tuple[int, list[Line]]:
    """The number of views and the lines of transforms of an ``augment`` section, checked.

    Raises:
        ModelwrightError: a line is wrong, or is for batches of a training.
    """
    copies, lines = 1, []
    for line in settings:
        if isinstance(line, dict) and list(line) == [COPIES]:
            copies = line[COPIES]
            if not isinstance(copies, int) or not 1 <= copies <= _MOST:
                raise ModelwrightError(
                    f"augment: copies: {copies!r} is no number from 1 to {_MOST}"
                )
        else:
            lines.append(line)
    rows.check(chain(lines))
    return copies, lines


def plan_augment(
    write_units: Sequence[Unit], settings: Sequence[Line], *, seed: int = 1
) -> list[Unit]:
    """One unit for each unit of the stage write; none where nothing is augmented.

    Args:
        write_units: the units of the stage write.
        settings: the ``augment`` section: lines of transforms, and ``{copies: n}``.
        seed: of the corpus.

    Raises:
        ModelwrightError: a line is wrong.
    """
    copies, lines = lines_of(settings)
    if settings and not lines:
        raise ModelwrightError("augment: no transform to make views with; add a line such as typos")
    names = [line if isinstance(line, str) else next(iter(line)) for line in lines]
    # Transforms are found by name, so their code is made part of the mark here.
    code = {name: code_hash(transform_class(str(name)).__module__) for name in names}
    assets = [found() for t in chain(lines) if (found := getattr(t, "assets", None))]
    return [
        Unit(
            "augment",
            unit.name,
            f"{__name__}:augment",
            {
                "write": unit.name,
                "lines": lines,
                "copies": copies,
                "seed": seed,
                "code": code,
                "assets": assets,
            },
            reads=(f"write/{unit.name}:{ROWS}",),
            bytes=unit.bytes * copies,
        )
        for unit in (write_units if lines else ())
    ]


def augment(arguments: dict[str, Any], out: Path) -> Facts:
    """Write the views of one unit's train rows.

    Args:
        arguments: ``write``, the name of the write unit; ``lines``, ``copies`` and ``seed``.
        out: the folder to write into.
    """
    source = unit_folder(Path(arguments[CORPUS]), "write", arguments["write"]) / ROWS
    seen, made, unchanged = Ids(), Ids(), 0
    with records.Writer(out / ROWS, records.FINAL) as writer:
        for row in records.rows(source):
            if row["split"] != "train":
                continue
            seen.add(id_hash(row["id"]))
            for view in _views(row, arguments):
                if view is None:
                    unchanged += 1
                    continue
                made.add(id_hash(view["id"]))
                size = len(view["text"] or "") + len(view["media"] or b"")
                writer.add([view[name] for name in records.FINAL], size)
    return {"in": seen.facts(), "made": made.facts(), "unchanged": unchanged}


def _views(row: WorkRow, arguments: dict[str, Any]) -> Iterator[WorkRow | None]:
    """The views of a row, each a function of (seed, id, number) alone."""
    transforms = chain(arguments["lines"])
    for number in range(arguments["copies"]):
        rng = generator(arguments["seed"], "augment", row["id"], number)
        view = rows.view(row, transforms, rng)
        if view is not None:
            view = {**view, "id": f"{row['id']}~{number + 1}", "parents": [row["id"]]}
        yield view
