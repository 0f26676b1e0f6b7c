"""Dividing rows into train, validation and test, and proving that nothing leaks between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.data import people
from modelwright.data.dedup import NEAR, NearIndex, Shingles, content_key, shingles
from modelwright.data.waterfall import Dropped, drop, row_bytes
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.kernels.shingles import distinct
from modelwright.types import Row

PARTS = ("train", "validation", "test")
PLAYERS = "players"
FRACTIONS: Mapping[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}
OVERLAP_WORDS = 13  # the n-gram by which GPT-3 was checked (arXiv:2005.14165, appendix C)
_GIVEN_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
_EXAMPLES = 5

Splits = dict[str, list[Row]]


def split_rows(
    rows: Sequence[Row],
    fractions: Mapping[str, float] = FRACTIONS,
    by: str = "group",
    *,
    seed: int = 0,
    threshold: float = NEAR,
    players: Sequence[str] = (),
) -> tuple[Splits, list[Dropped]]:
    """Put every row in one part; rows of one group stay together, and no copy crosses.

    Groups are taken in the order of a seeded hash until validation and test have their share of
    the bytes; a group larger than a quarter of a part's share goes to train while smaller ones
    suffice, so that no single giant is what a model is judged by. A row of validation or test
    that is a verified near-duplicate of a train row is dropped, as is one of validation that is
    one of a test row.

    With ``by="given"`` the rows' own column ``split`` decides. Where it names no validation
    rows, they are cut from train, by group. Then the held-out rows are what others publish
    results on, so it is their copies in train that are dropped.

    Args:
        rows: Rows with ``id``, and ``group`` or the column ``by``.
        fractions: Share of the bytes for "train", "validation" and "test", adding up to 1. A
            share of 0 gives an empty part.
        by: The column whose equal values must not be torn, "given", or "players": games of people
            who are held out, as ``people`` draws or names them.
        seed: Of the hash that orders the groups.
        threshold: Jaccard similarity of word 5-grams from which texts count as copies.
        players: Names, or parts of them, whom the test part holds out; empty: they are drawn.

    Returns:
        The rows of each part, in their order, and the dropped rows.

    Raises:
        ModelwrightError: Fractions that do not add up, a missing column, an unknown name of a
            part, or fewer groups than parts.
    """
    _check_fractions(fractions)
    if by == "given":
        splits = _given(rows, fractions, seed)
        return without_copies(splits, ("test", "validation", "train"), threshold)
    if not rows:
        raise ModelwrightError("split: there are no rows to split: check the steps before")
    splits = {part: [] for part in PARTS}
    if by == PLAYERS:
        held = people.hold_out(rows, fractions, players, seed)
        for part, row in (people.marked(row, held) for row in rows):
            splits[part].append(row)
    else:
        groups = _column(rows, by)
        sides = _assign(_sizes(rows, groups), fractions, by, seed)
        for row, group in zip(rows, groups, strict=True):
            splits[sides[group]].append(row)
    return without_copies(splits, ("train", "test", "validation"), threshold)


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for part, share in fractions.items():
        if part not in PARTS:
            raise ModelwrightError(
                f"split fractions: no part {part!r}{did_you_mean(part, PARTS)};"
                f" parts: {', '.join(PARTS)}"
            )
        if not 0 <= share <= 1:
            raise ModelwrightError(f"split fractions: {part} is {share}: must be from 0 to 1")
    total = sum(fractions.values())
    if fractions.get("train", 0) <= 0 or abs(total - 1) > 1e-6:
        raise ModelwrightError(
            f"split fractions: {dict(fractions)} add up to {total:g}:"
            " must add up to 1, with something for train"
        )


def _column(rows: Sequence[Row], name: str) -> list[str]:
    for row in rows:
        if name not in row:
            raise ModelwrightError(
                f"split by {name!r}: row {row['id']!r} has no such column{did_you_mean(name, row)};"
                f" it has: {', '.join(row)}"
            )
    return [str(row[name]) for row in rows]


def _sizes(rows: Iterable[Row], groups: Iterable[str]) -> dict[str, int]:
    sizes: dict[str, int] = defaultdict(int)
    for row, group in zip(rows, groups, strict=True):
        sizes[group] += max(1, row_bytes(row))
    return dict(sizes)


def _assign(
    sizes: Mapping[str, int], fractions: Mapping[str, float], by: str, seed: int
) -> dict[str, str]:
    """The part of each group."""
    total = sum(sizes.values())
    target = {p: fractions[p] * total for p in PARTS[1:] if fractions.get(p, 0) > 0}
    if len(sizes) <= len(target):
        raise ModelwrightError(
            f"split by {by!r}: {len(target) + 1} parts need as many groups, the data has"
            f" {len(sizes)}: give more data, or split by a finer column"
        )
    order = sorted(sizes, key=lambda group: people.seeded(seed, group))
    sides = dict.fromkeys(order, "train")
    filled = dict.fromkeys(target, 0)
    for largest in (0.25, 1.0):  # the share of a part that one group may take
        for group in order:
            size = sizes[group]
            room = [
                part
                for part, wanted in target.items()
                if filled[part] < 0.95 * wanted
                and filled[part] + size <= 1.05 * wanted
                and size <= largest * wanted
            ]
            if room and sides[group] == "train":
                part = min(room, key=lambda p: filled[p] / target[p])
                sides[group] = part
                filled[part] += size
    for part in (p for p in target if not filled[p]):
        group = min((g for g in order if sides[g] == "train"), key=sizes.__getitem__)
        sides[group] = part
    return sides


def _given(rows: Sequence[Row], fractions: Mapping[str, float], seed: int) -> Splits:
    splits: Splits = {part: [] for part in PARTS}
    for row, name in zip(rows, _column(rows, "split"), strict=True):
        part = _GIVEN_NAMES.get(name, name)
        if part not in splits:
            raise ModelwrightError(
                f"split by 'given': row {row['id']!r} is in split {name!r}"
                f"{did_you_mean(name, PARTS)}; parts: {', '.join(PARTS)}"
            )
        splits[part].append(row)
    if not splits["train"]:
        raise ModelwrightError(
            "split by 'given': no row is in split 'train': name one so, or split by 'group'"
        )
    wanted = fractions.get("validation", 0)
    if wanted > 0 and not splits["validation"]:
        train = splits["train"]
        groups = _column(train, "group")
        share = wanted / (wanted + fractions["train"])
        cut = {"train": 1 - share, "validation": share}
        sides = _assign(_sizes(train, groups), cut, "group", seed)
        for part in cut:
            splits[part] = [r for r, g in zip(train, groups, strict=True) if sides[g] == part]
    return splits


def without_copies(
    splits: Splits, order: Sequence[str], threshold: float
) -> tuple[Splits, list[Dropped]]:
    """Drop rows that are copies of a row in a part that comes earlier in ``order``."""
    rows = [row for part in order for row in splits[part]]
    texts = [i for i, row in enumerate(rows) if isinstance(row.get("text"), str)]
    place = {i: n for n, i in enumerate(texts)}
    index = NearIndex([rows[i]["text"] for i in texts], threshold=threshold)
    owner: dict[bytes, int] = {}
    side = [part for part in order for _ in splits[part]]
    gone: dict[int, Dropped] = {}
    first = 0
    for part in order:
        numbers = range(first, first + len(splits[part]))
        keys = [content_key(rows[i]) for i in numbers]
        for i, key in zip(numbers, keys, strict=True):
            if key in owner:
                kept, reason, similarity = owner[key], "exact duplicate", 1.0
            elif i in place and (twin := next(index.near(place[i]), None)):
                kept, reason, similarity = texts[twin[0]], "near-duplicate", twin[1]
            else:
                continue
            why = f"{reason} of a {side[kept]} row"
            gone[i] = drop(rows[i], why, rows[kept]["id"], similarity)
        for i, key in zip(numbers, keys, strict=True):
            if i not in gone:
                owner.setdefault(key, i)
                if i in place:
                    index.add(place[i])
        first = numbers.stop
    left: Splits = {part: [] for part in PARTS}
    for i, (row, part) in enumerate(zip(rows, side, strict=True)):
        if i not in gone:
            left[part].append(row)
    return left, list(gone.values())


def leakage_audit(
    splits: Mapping[str, Sequence[Row]], by: str = "group", *, threshold: float = NEAR
) -> dict[str, Any]:
    """Look for what the parts share, with other hash functions than the split used.

    Returns:
        Plain values: ``sizes`` (rows, bytes, groups of each part); ``exact_duplicates`` and
        ``near_duplicates`` (number by pair of parts, of verified pairs), ``groups_torn``, with
        ``examples``; ``ngram_overlap``: for each held-out part, the share of its rows that have
        a 13-word sequence in common with train, and the share of its distinct sequences in a
        row that do; ``holds``: law 11, no duplicates and no torn groups. Common sequences, such
        as licence headers, do not break it: they are for people to judge.
    """
    parts = [part for part in splits if splits[part]]
    rows = [row for part in parts for row in splits[part]]
    side = [part for part in parts for _ in splits[part]]
    exact, near, examples = _crossing_pairs(rows, side, threshold)
    torn = people.torn(splits) if by == PLAYERS else _torn_groups(splits, by)
    return {
        "sizes": {
            part: {
                "rows": len(splits[part]),
                "bytes": sum(map(row_bytes, splits[part])),
                "groups": _groups(splits[part], by),
            }
            for part in splits
        },
        "exact_duplicates": exact,
        "near_duplicates": near,
        "groups_torn": len(torn),
        "examples": {"pairs": examples, "groups": torn[:_EXAMPLES]},
        "ngram_overlap": _ngram_overlap(splits),
        "threshold": threshold,
        "holds": not (sum(exact.values()) or sum(near.values()) or torn),
    }


def _groups(rows: Sequence[Row], by: str) -> int:
    """How many groups, or people, there are."""
    if by == PLAYERS:
        return len(set[str]().union(*map(people.people_of, rows)))
    return len({row.get(by) for row in rows})


def _crossing_pairs(
    rows: Sequence[Row], side: Sequence[str], threshold: float
) -> tuple[dict[str, int], dict[str, int], list[dict[str, Any]]]:
    exact: dict[str, int] = defaultdict(int)
    near: dict[str, int] = defaultdict(int)
    examples: list[dict[str, Any]] = []
    keys = [content_key(row) for row in rows]
    texts = [i for i, row in enumerate(rows) if isinstance(row.get("text"), str)]
    index = NearIndex([rows[i]["text"] for i in texts], threshold=threshold, seed=1)
    met: dict[bytes, list[int]] = defaultdict(list)
    place = {i: n for n, i in enumerate(texts)}

    def note(counts: dict[str, int], j: int, i: int, similarity: float) -> None:
        counts[f"{side[j]}/{side[i]}"] += 1
        if len(examples) < _EXAMPLES:
            pair = [rows[j]["id"], rows[i]["id"]]
            examples.append({"ids": pair, "similarity": round(similarity, 4)})

    for i, key in enumerate(keys):
        for j in met[key]:
            if side[j] != side[i]:
                note(exact, j, i, 1.0)
        met[key].append(i)
        if i in place:
            for n, similarity in index.near(place[i]):
                j = texts[n]
                if side[j] != side[i] and keys[j] != key:
                    note(near, j, i, similarity)
            index.add(place[i])
    return dict(exact), dict(near), examples


def _torn_groups(splits: Mapping[str, Sequence[Row]], by: str) -> list[str]:
    sides: dict[str, set[str]] = defaultdict(set)
    for part, rows in splits.items():
        for row in rows:
            if by in row:
                sides[str(row[by])].add(part)
    return sorted(group for group, where in sides.items() if len(where) > 1)


def _ngram_overlap(splits: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    sets = {part: _word_sequences(rows) for part, rows in splits.items()}
    if "train" not in sets:
        return {}
    known = distinct(sets["train"].values)
    overlap: dict[str, dict[str, float]] = {}
    for part, found in sets.items():
        if part == "train" or not len(found):
            continue
        where = np.searchsorted(known, found.values).clip(max=max(0, len(known) - 1))
        shared = known[where] == found.values if len(known) else np.zeros(len(where), bool)
        owner = np.repeat(np.arange(len(found)), np.diff(found.offsets))
        overlap[part] = {
            "rows": len(np.unique(owner[shared])) / len(found),
            "ngrams": float(shared.mean()) if len(shared) else 0.0,
        }
    return overlap


def _word_sequences(rows: Sequence[Row]) -> Shingles:
    texts = [row["text"] for row in rows if isinstance(row.get("text"), str)]
    return shingles(texts, OVERLAP_WORDS, whole=False)
