"""Near-duplicates out of core: what is planted is found, what is found is true."""

from __future__ import annotations

import json
import lzma
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import pairs as pairs_module
from modelwright.data.corpus import records
from modelwright.data.corpus.components import plan_resolve
from modelwright.data.corpus.pairs import FIRST, plan_gather, plan_pairs
from modelwright.data.corpus.sketch import load
from modelwright.data.corpus.unit import CORPUS, unit_folder
from modelwright.data.dedup import drop_duplicates
from modelwright.errors import CorruptError
from tests.data_stage.tiny import SETTINGS, candidates, deduplicated, row, run, write_read

WORDS = [f"word{i}" for i in range(4000)]


def document(seed: int, length: int = 120) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def edited(words: list[str], share: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"new{rng.randrange(10**9)}" if rng.random() < share else w for w in words]


def jaccard(a: str, b: str) -> float:
    def grams(text: str) -> set:
        words = text.lower().split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def planted(copies: int = 200) -> list[dict]:
    rows = []
    for i in range(copies):
        words = document(i, 60 + i)
        rows.append(row(f"{i:04d}", " ".join(words)))
        for share in (0.01, 0.05, 0.1, 0.2):
            text = " ".join(edited(words, share, i))
            rows.append(row(f"{i:04d}-{share}", text))
    random.Random(0).shuffle(rows)
    return rows


def in_units(rows: list[dict], size: int) -> list[list[dict]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def found_pairs(corpus, read: list[str], rows: list[dict]) -> dict[tuple[str, str], float]:
    ids = [r["id"] for r in rows]
    found = {}
    for unit in read:
        folder = unit_folder(corpus, "verify", unit)
        for pair, similarity in zip(
            load(folder, "near").tolist(), load(folder, "similarity").tolist(), strict=True
        ):
            found[ids[pair[0]], ids[pair[1]]] = similarity
    return found


def test_all_planted_pairs_are_found_with_their_true_similarity(tmp_path):
    rows = planted()
    read = write_read(tmp_path, in_units(rows, 170), SETTINGS)
    candidates(tmp_path, read, SETTINGS)
    found = found_pairs(tmp_path, read, rows)
    expected = {}
    for i in range(200):
        family = [r for r in rows if r["id"].startswith(f"{i:04d}")]
        for n, a in enumerate(family):
            for b in family[n + 1 :]:
                if a["text"] != b["text"] and jaccard(a["text"], b["text"]) >= 0.8:
                    expected[a["id"], b["id"]] = jaccard(a["text"], b["text"])
    assert len(expected) > 150
    missed = expected.keys() - found.keys()
    # An exact copy stands for the other; P(miss) of a pair at 0.8 is 0.0001.
    standing = {r["text"]: r["id"] for r in reversed(rows)}
    text = {r["id"]: r["text"] for r in rows}
    assert all(standing[text[a]] != a or standing[text[b]] != b for a, b in missed)
    assert found.keys() <= expected.keys()
    for pair, similarity in found.items():
        assert similarity == pytest.approx(expected[pair])


def test_the_same_rows_leave_as_in_memory(tmp_path):
    rows = planted(120)
    fates, facts = deduplicated(tmp_path, in_units(rows, 100))
    kept, dropped = drop_duplicates(rows)
    assert [i for i, f in fates.items() if f["kept"]] == [r["id"] for r in kept]
    assert {i: f["kept_id"] for i, f in fates.items() if not f["kept"]} == {
        d.id: d.kept_id for d in dropped
    }
    assert facts["exact"] + facts["near"] == len(dropped) > 100


def test_nothing_depends_on_buckets_or_on_how_rows_are_cut_into_units(tmp_path):
    rows = planted(40)
    results = []
    for name, size, memory in (("a", 1000, 1 << 30), ("b", 37, 1 << 18), ("c", 11, 1 << 17)):
        fates, facts = deduplicated(tmp_path / name, in_units(rows, size), memory=memory)
        results.append((fates, facts["exact"], facts["near"], facts["splits"]))
    assert len(list((tmp_path / "c" / "stages" / "pairs").iterdir())) > 5
    assert results[0] == results[1] == results[2]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_small_corpus_is_cut_and_joined_without_a_difference(tmp_path_factory, data):
    texts = st.lists(st.sampled_from(list("abcdef")), max_size=9).map(" ".join)
    rows = [row(f"{i}", t) for i, t in enumerate(data.draw(st.lists(texts, max_size=12)))]
    whole, _ = deduplicated(tmp_path_factory.mktemp("whole"), [rows])
    size = data.draw(st.integers(1, 5))
    parts, _ = deduplicated(tmp_path_factory.mktemp("parts"), in_units(rows, size), memory=4000)
    assert whole == parts
    for fate in whole.values():
        assert fate["kept"] or whole[fate["kept_id"]]["kept"]


def test_a_key_that_many_share_costs_a_multiple_and_not_the_square(tmp_path):
    words = document(1)
    rows = [row(f"{i}", " ".join([*words, f"end{i}"])) for i in range(600)]
    read = write_read(tmp_path, in_units(rows, 200), SETTINGS)
    planned = plan_pairs(tmp_path, read)
    (facts,) = run(tmp_path, planned)
    assert 599 <= facts["candidates"] <= 2 * FIRST * 600  # not every band is shared by all
    pairs = [planned[0].name]
    run(tmp_path, plan_gather(tmp_path, read, pairs))
    run(tmp_path, pairs_module.plan_verify(tmp_path, read, pairs, SETTINGS))
    (facts,) = run(tmp_path, plan_resolve(read, pairs, SETTINGS))
    assert facts["kept"] == 1
    assert facts["clusters"][0]["rows"] == 600


def test_equal_rows_are_one_candidate(tmp_path):
    text, other = " ".join(document(5)), " ".join(edited(document(5), 0.01, 9))
    rows = [row(f"{i}", text) for i in range(300)] + [row("near", other)]
    read = write_read(tmp_path, in_units(rows, 50), SETTINGS)
    (facts,) = run(tmp_path, plan_pairs(tmp_path, read))
    assert facts["exact"] == 299
    assert facts["candidates"] == 1


def test_a_unit_of_pairs_keeps_within_its_memory(tmp_path):
    """Every key shared, the worst case: what is planned for is what is taken."""
    rows = [
        row(f"{i}", " ".join(document(i // 2, 12)) + (" x" if i % 2 else "")) for i in range(6000)
    ]
    read = write_read(tmp_path, in_units(rows, 500), SETTINGS)
    memory = 2 << 20
    planned = plan_pairs(tmp_path, read, memory)
    assert len(planned) > 8
    run(tmp_path, planned[:1])  # what is loaded once
    tracemalloc.start()
    run(tmp_path, planned[1:2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory


def test_gathering_holds_one_batch_of_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "_BATCH", 2000)
    rows = planted(40)
    small, _ = deduplicated(tmp_path / "small", in_units(rows, 50))
    monkeypatch.undo()
    large, _ = deduplicated(tmp_path / "large", in_units(rows, 50))
    assert small == large


def test_records_that_end_too_early_are_told(tmp_path):
    rows = planted(10)
    read = write_read(tmp_path, [rows], SETTINGS)
    planned = plan_pairs(tmp_path, read)
    run(tmp_path, planned)
    folder = unit_folder(tmp_path, "read", read[0])
    with records.Writer(folder / records.RECORDS, records.RECORD) as writer:
        writer.add(records.record_values(rows[0]), 10)
    (unit,) = plan_gather(tmp_path, read, [planned[0].name])
    with pytest.raises(CorruptError, match=r"has 1 rows, its sketch more"):
        pairs_module.gather(unit.arguments | {CORPUS: str(tmp_path)}, tmp_path)


def test_no_rows_at_all(tmp_path):
    assert deduplicated(tmp_path / "a", [])[0] == {}
    assert deduplicated(tmp_path / "b", [[], []])[0] == {}


def test_reviews_with_edits(tmp_path, data):
    """Real reviews, a third of them again with one word in a hundred changed."""
    with lzma.open(data("imdb/train.jsonl.xz"), "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(1200), strict=False)]
    rows = [row(f"{i}", text) for i, text in enumerate(texts)]
    rows += [
        row(f"{i}-copy", " ".join(edited(text.split(), 0.01, i)))
        for i, text in enumerate(texts[::3])
    ]
    fates, _ = deduplicated(tmp_path, in_units(rows, 400))
    kept, _ = drop_duplicates(rows)
    assert {i for i, f in fates.items() if f["kept"]} == {r["id"] for r in kept}
    found = np.array([not fates[r["id"]]["kept"] for r in rows[1200:]])
    assert found.mean() > 0.9
