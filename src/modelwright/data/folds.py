"""Dividing rows into folds, each of which is held out once: shuffled, by group, or in time.

Cross-validation (Stone 1974) measures what one split cannot: how much a result depends on which
rows happened to be held out. A part kept for testing is no part of any fold.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from modelwright.data.dedup import NEAR
from modelwright.data.split import FRACTIONS, Splits, split_rows, without_copies
from modelwright.data.waterfall import Dropped, drop
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Row

By = Literal["row", "group", "time"]
WAYS: tuple[By, ...] = ("row", "group", "time")


def fold_rows(
    rows: Sequence[Row],
    number: int,
    of: int,
    by: By = "row",
    *,
    fractions: dict[str, float] | None = None,
    split_by: str = "group",
    label: str = "",
    seed: int = 0,
    threshold: float = NEAR,
    players: Sequence[str] = (),
) -> tuple[Splits, list[Dropped]]:
    """The parts of one fold: ``train``, and in ``test`` the rows that are held out.

    First the recipe's own test part is set apart, exactly as an ordinary run would, and takes no
    part in any fold. Train rows that are copies of held-out ones leave (law 11), so that every
    row is still held out in its turn. In time, where the held-out rows come later, the rows
    after them leave too.

    Args:
        rows: Rows with ``id``, and ``group``, ``time`` or ``label`` where these are used.
        number: Which fold is held out, from 1.
        of: How many folds there are, at least 2.
        by: "row" (shuffled, stratified by ``label``), "group" or "time".
        fractions: Shares of the recipe's split, for the test part.
        split_by: The column of the recipe's split, "given" or "players".
        label: The column of the label; "" or one that rows lack: folds are not stratified.
        seed: Of the shuffle.
        threshold: Jaccard similarity from which texts count as copies.
        players: Of the recipe's split, whom its test part holds out.

    Returns:
        The rows of each part (none in ``validation``), and the rows that left, with reasons.

    Raises:
        ModelwrightError: A fold that does not exist, or too few rows or groups for so many.
    """
    if not 1 <= number <= of:
        raise ModelwrightError(f"fold {number} of {of}: there is none; number them from 1 to {of}")
    parts, gone = split_rows(
        rows,
        fractions or FRACTIONS,
        split_by,
        seed=seed,
        threshold=threshold,
        players=players,
    )
    gone += [drop(row, "kept for the final test") for row in parts["test"]]
    left = {d.id for d in gone}
    pool = [row for row in rows if row["id"] not in left]
    folds = assign_folds(pool, of, by, label=label, seed=seed)
    if by == "time":
        future = [row for row, fold in zip(pool, folds, strict=True) if fold > number]
        gone += [drop(row, "later than the held-out rows") for row in future]
    past: Callable[[int], bool] = (
        (lambda fold: fold < number) if by == "time" else (lambda fold: fold != number)
    )
    splits: Splits = {
        "train": [row for row, fold in zip(pool, folds, strict=True) if past(fold)],
        "validation": [],
        "test": [row for row, fold in zip(pool, folds, strict=True) if fold == number],
    }
    splits, copies = without_copies(splits, ("test", "validation", "train"), threshold)
    return splits, gone + copies


def assign_folds(
    rows: Sequence[Row], of: int, by: By = "row", *, label: str = "", seed: int = 0
) -> list[int]:
    """The fold in which each row is held out: 1 .. ``of``; in time, 0 is never held out.

    Args:
        rows: The rows that are divided.
        of: How many folds, at least 2.
        by: "row", "group" or "time".
        label: The column of the label, for "row".
        seed: Of the shuffle.

    Returns:
        A fold for every row, in their order; no fold is empty.

    Raises:
        ModelwrightError: Fewer rows, groups or times than folds; a ``time`` that cannot be read.
    """
    if by not in WAYS:
        raise ModelwrightError(
            f"folds by {by!r}: no such way{did_you_mean(by, WAYS)}; known: {', '.join(WAYS)}"
        )
    if of < 2:
        raise ModelwrightError(f"{of} folds: cross-validation needs at least 2")
    ways = {"row": _by_row, "group": _by_group, "time": _by_time}
    return ways[by](rows, of, label, seed)


def _by_row(rows: Sequence[Row], of: int, label: str, seed: int) -> list[int]:
    """Rows dealt like cards, label after label: folds differ by one row, and by one a label."""
    _enough(len(rows), of, "row")
    keys = [(str(row.get(label, "")), _hash(seed, str(row["id"]))) for row in rows]
    folds = [0] * len(rows)
    for place, i in enumerate(sorted(range(len(rows)), key=keys.__getitem__)):
        folds[i] = place % of + 1
    return folds


def _by_group(rows: Sequence[Row], of: int, label: str, seed: int) -> list[int]:  # noqa: ARG001
    """The largest group first, each to the fold with the fewest rows so far."""
    groups = [str(row.get("group", row["id"])) for row in rows]
    sizes = Counter(groups)
    _enough(len(sizes), of, "group")
    filled = [0] * of
    fold_of: dict[str, int] = {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], _hash(seed, g))):
        fold = min(range(of), key=filled.__getitem__)
        fold_of[group] = fold + 1
        filled[fold] += sizes[group]
    return [fold_of[group] for group in groups]


def _by_time(rows: Sequence[Row], of: int, label: str, seed: int) -> list[int]:  # noqa: ARG001
    """Blocks of about equal size in the order of time; rows of one moment stay together."""
    moments = _moments(rows)
    counts: dict[float, int] = defaultdict(int)
    for moment in moments:
        counts[moment] += 1
    _enough(len(counts), of + 1, "time")
    blocks: dict[float, int] = {}
    block, before = 0, 0
    for place, moment in enumerate(sorted(counts)):
        left = len(counts) - place  # moments from here on: every later block needs one
        due = before * (of + 1) >= (block + 1) * len(rows) or left <= of - block
        if before and block < of and due:
            block += 1
        blocks[moment] = block
        before += counts[moment]
    return [blocks[moment] for moment in moments]


def _moments(rows: Sequence[Row]) -> list[float]:
    """When each row is from: its ``time``, or its place where no row has one."""
    told = [row for row in rows if row.get("time") is not None]
    if not told:
        return [float(i) for i in range(len(rows))]
    if len(told) < len(rows):
        lacking = next(row for row in rows if row.get("time") is None)
        raise ModelwrightError(
            f"folds by 'time': row {lacking['id']!r} has no 'time', which other rows have: "
            "complete or remove it"
        )
    kinds: set[str] = set()
    moments = []
    for row in rows:
        kind, moment = _moment(row["time"], str(row["id"]))
        kinds.add(kind)
        moments.append(moment)
    if len(kinds) > 1:
        raise ModelwrightError(
            "folds by 'time': some rows have a number and some a date: write all the same way"
        )
    return moments


def _moment(value: Any, row: str) -> tuple[str, float]:
    """("number", itself) or ("date", seconds since 1970; without a zone it counts as UTC)."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.min)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if not _numeric(value) else float(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        return "date", zoned.timestamp()
    try:
        moment = float(value)
    except (TypeError, ValueError):
        moment = math.nan
    if not math.isfinite(moment):
        raise ModelwrightError(
            f"folds by 'time': row {row!r} has a 'time' that is neither a number nor a date such "
            "as 2026-01-31 or 2026-01-31T08:00:00+00:00: correct it"
        )
    return "number", moment


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _enough(have: int, need: int, what: str) -> None:
    if have < need:
        said = {"row": "rows", "group": "groups", "time": "different times"}[what]
        raise ModelwrightError(
            f"folds by {what!r}: {need if what != 'time' else need - 1} folds need {need} {said}, "
            f"there are {have}: ask for fewer folds, or give more data"
        )


def _hash(seed: int, name: str) -> bytes:
    text = f"fold:{seed}:{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
