"""Splits that hold people out: the two who play a game, none of whose moves may be learned.

A game belongs to two people, so no column of it can be what a split keeps together. People are
named or drawn; a game of one of them is in the part that holds him out, and in its column
``strangers`` are those of its players who are held out anywhere, whose moves alone are measured.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from modelwright.data.waterfall import row_bytes
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Row

COLUMNS = ("white", "black")
HELD_OUT = ("test", "validation")  # in the order in which people are drawn
_NOBODY = ("", "?", "nn", "n.n.", "n, n", "unknown", "anonymous")
_LARGEST = (0.25, 1.0)  # share of a part that one person may take, while smaller ones suffice
_SLACK = 0.05  # of a part's share


def person(name: object) -> str:
    """A name as it is compared: without case and further spaces; "" where nobody is named."""
    plain = " ".join(str(name or "").casefold().split())
    return "" if plain in _NOBODY else plain


def people_of(row: Row) -> set[str]:
    """The players of a game who are known.

    Raises:
        ModelwrightError: it has no columns of players.
    """
    for column in COLUMNS:
        if column not in row:
            raise ModelwrightError(
                f"split by 'players': row {row['id']!r} has no column {column!r}"
                f"{did_you_mean(column, row)}; rows of games have {' and '.join(COLUMNS)}"
            )
    return {name for column in COLUMNS if (name := person(row[column]))}


def seeded(seed: int, name: str) -> bytes:
    """A hash by which names are put in an order of chance that is always the same."""
    content = f"{seed}:{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


def hold_out(
    rows: Sequence[Row], fractions: Mapping[str, float], names: Sequence[str], seed: int
) -> dict[str, set[str]]:
    """The people whom test and validation hold out; nobody is in both.

    Args:
        rows: games with ``white`` and ``black``.
        fractions: shares of the bytes that their games are to have.
        names: people of the test part, or parts of their names; empty: they are drawn.
        seed: of the draw.

    Raises:
        ModelwrightError: nobody is called so, or too few people are there.
    """
    games: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        for one in sorted(people_of(row)):
            games[one].append(number)
    sizes = [max(1, row_bytes(row)) for row in rows]
    left = set(range(len(rows)))
    held: dict[str, set[str]] = {}
    for part in HELD_OUT:
        wanted = fractions.get(part, 0) * sum(sizes)
        if part == "test" and names:
            held[part] = _called(names, games)
        else:
            held[part] = _drawn(games, sizes, left, wanted, seed) if wanted else set()
        left -= {number for one in held[part] for number in games[one]}
    if not left:
        raise ModelwrightError(
            "split by 'players': every game is of somebody who is held out; name fewer people, or"
            " give more games"
        )
    return held


def _called(names: Sequence[str], known: Collection[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        some = {one for one in known if person(name) and person(name) in one}
        if not some:
            raise ModelwrightError(
                f"split.players: nobody is called {name[:60]!r}{did_you_mean(person(name), known)}"
            )
        found |= some
    return found


def _drawn(
    games: Mapping[str, Sequence[int]],
    sizes: Sequence[int],
    left: Collection[int],
    wanted: float,
    seed: int,
) -> set[str]:
    """People drawn until their games have ``wanted`` bytes of those that are left."""
    order = sorted(games, key=lambda one: seeded(seed, one))
    found: set[str] = set()
    taken: set[int] = set()
    filled = 0
    for largest in _LARGEST:
        for one in order:
            new = {n for n in games[one] if n in left and n not in taken}
            size = sum(sizes[n] for n in new)
            fits = size <= largest * wanted and filled + size <= (1 + _SLACK) * wanted
            if one not in found and new and fits and filled < (1 - _SLACK) * wanted:
                found.add(one)
                taken |= new
                filled += size
    if not found:
        sized = {one: sum(sizes[n] for n in games[one] if n in left) for one in order}
        some = [one for one in order if sized[one]]
        if not some:
            raise ModelwrightError(
                "split by 'players': too few people to hold out; give more games, or name the"
                " players of the test part and set validation=0"
            )
        found.add(min(some, key=sized.__getitem__))
    return found


def marked(row: Row, held: Mapping[str, Collection[str]]) -> tuple[str, Row]:
    """The part of a game, and the game with its ``strangers``, who are held out in any part."""
    here = people_of(row)
    part = next((part for part in HELD_OUT if here & set(held.get(part, ()))), "train")
    strangers = sorted(one for one in here if any(one in of for of in held.values()))
    return part, {**row, "strangers": strangers} if strangers else row


def torn(splits: Mapping[str, Sequence[Row]]) -> list[str]:
    """People who are held out in a part and have a game in train."""
    held = {one for part in HELD_OUT for row in splits.get(part, ()) for one in row["strangers"]}
    return sorted({one for row in splits.get("train", ()) for one in people_of(row)} & held)
