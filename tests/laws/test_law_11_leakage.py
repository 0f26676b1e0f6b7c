"""Law 11: near-duplicates and groups stay on one side of a split."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.dedup import drop_duplicates
from modelwright.data.sources import read_rows
from modelwright.data.split import leakage_audit, split_rows

WORDS = [f"w{i}" for i in range(400)]


def grams(text: str) -> set[tuple[str, ...]]:
    """Word 5-grams, written anew so that a fault of the library's own cannot hide itself."""
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def likeness(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


@st.composite
def corpora(draw: st.DrawFn) -> list[dict]:
    """Documents in groups; half copy an earlier one, with words changed and the end cut off."""
    chance = random.Random(draw(st.integers(0, 10**6)))
    groups = draw(st.integers(4, 12))
    documents: list[list[str]] = []
    for _ in range(draw(st.integers(12, 40))):
        if documents and chance.random() < 0.5:
            words = list(chance.choice(documents))
            for _ in range(chance.randrange(6)):
                words[chance.randrange(len(words))] = chance.choice(WORDS)
            words = words[: len(words) - chance.randrange(1 + len(words) // 4)]
        else:
            words = chance.choices(WORDS, k=chance.choice([2, 5, 20, 80, 200]))
        documents.append(words)
    return [
        {"id": str(i), "group": f"g{i % groups}", "text": " ".join(words)}
        for i, words in enumerate(documents)
    ]


def held(splits: dict[str, list[dict]]) -> None:
    for one, other in combinations(splits, 2):
        groups = [{row["group"] for row in splits[part]} for part in (one, other)]
        assert groups[0].isdisjoint(groups[1])
        for a in splits[one]:
            for b in splits[other]:
                assert likeness(a["text"], b["text"]) < 0.8, (one, a["id"], other, b["id"])


@given(corpora(), st.integers(0, 1000), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_crosses_a_split(rows, seed, first):
    if first:
        rows, _ = drop_duplicates(rows)
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    if len({row["group"] for row in rows}) < 3:
        return
    splits, dropped = split_rows(rows, fractions, seed=seed)
    held(splits)
    audit = leakage_audit(splits)
    assert audit["holds"], audit
    text = {row["id"]: row["text"] for row in rows}
    side = {row["id"]: part for part, found in splits.items() for row in found}
    for gone in dropped:  # and nothing is dropped but for a copy that did stay, elsewhere
        assert likeness(text[gone.id], text[gone.kept_id]) >= 0.8
        assert gone.reason.endswith(f"of a {side[gone.kept_id]} row")


@given(corpora(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_audit_counts_exactly_what_crosses(rows, seed):
    chance = random.Random(seed)
    splits: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        splits[chance.choice(list(splits))].append(row)
    pairs = [
        likeness(a["text"], b["text"])
        for one, other in combinations(splits, 2)
        for a in splits[one]
        for b in splits[other]
    ]
    audit = leakage_audit(splits)
    assert sum(audit["exact_duplicates"].values()) == sum(s == 1 for s in pairs)
    assert sum(audit["near_duplicates"].values()) == sum(0.8 <= s < 1 for s in pairs)
    torn = {r["group"] for r in rows}
    torn = {g for g in torn if sum(any(r["group"] == g for r in s) for s in splits.values()) > 1}
    assert audit["groups_torn"] == len(torn)
    assert audit["holds"] == (not torn and all(s < 0.8 for s in pairs))


def test_the_standard_library_does_not_leak():
    rows, _ = drop_duplicates([r for r in read_rows("python-stdlib") if r["kind"] != "topic"])
    splits, _ = split_rows(rows)
    audit = leakage_audit(splits)
    assert audit["holds"], audit["examples"]
    for part in ("validation", "test"):
        assert audit["sizes"][part]["groups"] > 5
        assert audit["sizes"][part]["rows"] > 150
        assert audit["ngram_overlap"][part]["ngrams"] < 0.2
