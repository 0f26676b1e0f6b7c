"""Duplicates: all that are found are true, and all that are there are found."""

from __future__ import annotations

import random

import numpy as np
import pytest

from modelwright.data.dedup import (
    NearIndex,
    content_key,
    drop_duplicates,
    shingles,
    signatures,
)
from modelwright.data.stdlib import stdlib_rows
from modelwright.errors import ModelwrightError
from modelwright.kernels.shingles import _BLOCK

WORDS = [f"word{i}" for i in range(5000)]


def document(seed: int, length: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def row(name: str, words: list[str] | str) -> dict:
    return {"id": name, "text": words if isinstance(words, str) else " ".join(words)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    def grams(text: str) -> set:
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def changed(words: list[str], *places: int) -> list[str]:
    return [f"other{i}" if i in places else w for i, w in enumerate(words)]


def test_exact_duplicates_ignore_white_space_and_composition():
    rows = [row("a", "one  café\ntwo"), row("b", "one cafe\u0301 two "), row("c", "one cafe two")]
    kept, dropped = drop_duplicates(rows)
    assert [r["id"] for r in kept] == ["a", "c"]
    (gone,) = dropped
    assert (gone.id, gone.reason, gone.kept_id, gone.similarity) == ("b", "exact duplicate", "a", 1)


def test_the_similarity_reported_is_the_true_one():
    words = document(1)
    rows = [
        row("a", words),
        row("b", changed(words, 50)),
        row("c", changed(words, *range(9, 190, 30))),
    ]
    kept, dropped = drop_duplicates(rows)
    assert [r["id"] for r in kept] == ["a", "c"]
    assert jaccard(rows[0]["text"], rows[2]["text"]) < 0.8
    assert dropped[0].kept_id == "a"
    assert dropped[0].similarity == pytest.approx(jaccard(rows[0]["text"], rows[1]["text"]))


def test_likeness_is_not_followed_along_a_chain():
    """b is like a, c is like b but not like a: c stays, for b is gone."""
    words = document(2)
    rows = [
        row("a", words),
        row("b", changed(words, 40, 80)),
        row("c", changed(words, 40, 80, 120)),
    ]
    assert (
        jaccard(rows[0]["text"], rows[2]["text"]) < 0.87 <= jaccard(*(r["text"] for r in rows[:2]))
    )
    assert jaccard(rows[1]["text"], rows[2]["text"]) > 0.87
    kept, dropped = drop_duplicates(rows, threshold=0.87)
    assert [r["id"] for r in kept] == ["a", "c"]
    assert [(d.id, d.kept_id) for d in dropped] == [("b", "a")]


def test_every_planted_copy_is_found_and_nothing_else():
    rows = []
    for i in range(300):
        words = document(i, 80 + i)
        rows.append(row(f"{i}", words))
        if i % 3 == 0:
            rows.append(row(f"{i}-copy", changed(words, i % 80)))
    kept, dropped = drop_duplicates(rows)
    expected = {
        r["id"]
        for r, before in zip(rows[1:], rows, strict=False)
        if r["id"].endswith("copy") and jaccard(r["text"], before["text"]) >= 0.8
    }
    assert len(expected) == 100
    assert {d.id for d in dropped} == expected
    assert all(d.kept_id == d.id.removesuffix("-copy") for d in dropped)
    assert len(kept) + len(dropped) == len(rows)


def test_short_texts_and_texts_without_words():
    rows = [
        row("a", "Yes, sir!"),
        row("b", "yes sir"),
        row("c", "no sir"),
        row("d", "!!"),
        row("e", "??"),
    ]
    kept, dropped = drop_duplicates(rows)
    assert [r["id"] for r in kept] == ["a", "c", "d", "e"]
    assert dropped[0].reason == "near-duplicate"


def test_ideographs_are_words():
    text = "床前明月光疑是地上霜举头望明月低头思故乡"
    sets = shingles([text, text[:10] + "雪" + text[11:], text + "。"])
    assert len(sets[0]) == len(text) - 4
    assert sets.jaccard(0, 1) == pytest.approx(11 / 21)
    assert sets.jaccard(0, 2) == 1


def test_rows_without_text_are_compared_by_all_columns():
    image = np.arange(4, dtype=np.uint8)
    rows = [
        {"id": "a", "group": "a", "pixels": image, "label": "1"},
        {"id": "b", "group": "b", "pixels": image.copy(), "label": "1"},
        {"id": "c", "group": "c", "pixels": image, "label": "2"},
        {"id": "d", "group": "d", "pixels": image.reshape(2, 2), "label": "1"},
    ]
    kept, dropped = drop_duplicates(rows)
    assert [r["id"] for r in kept] == ["a", "c", "d"]
    assert dropped[0].kept_id == "a"
    assert content_key(rows[0]) == content_key(rows[1]) != content_key(rows[3])


def test_nothing_at_all():
    assert drop_duplicates([]) == ([], [])


def test_signatures_estimate_the_similarity():
    words = document(3, 2000)
    texts = [" ".join(w) for w in (words, changed(words, *range(0, 2000, 40)), document(4, 2000))]
    for seed in (0, 1):
        sets = shingles(texts)
        found = signatures(sets, seed)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            estimate = float((found[i] == found[j]).mean())
            assert abs(estimate - sets.jaccard(i, j)) < 4 * 0.5 / len(found[0]) ** 0.5
    assert (signatures(sets, 0) != signatures(sets, 1)).all()


def test_signatures_do_not_depend_on_the_neighbours():
    """Texts are hashed in blocks; what a block holds must not matter."""
    texts = [" ".join(document(i, 6 + i % 50)) for i in range(2000)]
    sets = shingles(texts)
    assert sets.offsets[-1] > _BLOCK
    together = signatures(sets)
    for i in range(2000):
        np.testing.assert_array_equal(together[i], signatures(shingles([texts[i]]))[0])


def test_a_threshold_out_of_range_is_refused():
    with pytest.raises(ModelwrightError, match=r"threshold 8.*0\.5 to 1"):
        NearIndex(["a"], threshold=8)


def test_the_standard_library():
    rows = [r for r in stdlib_rows() if r["kind"] == "object"]
    kept, dropped = drop_duplicates(rows)
    assert len(kept) + len(dropped) == len(rows)
    assert 20 < len(dropped) < 0.05 * len(rows)
    text = {r["id"]: r["text"] for r in rows}
    stay = {r["id"] for r in kept}
    for gone in dropped:
        assert gone.kept_id in stay
        sets = shingles([text[gone.id], text[gone.kept_id]])
        assert sets.jaccard(0, 1) == gone.similarity >= 0.8
