"""What leaves, and what stays together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import sketch
from modelwright.data.corpus.components import components, copies
from modelwright.data.corpus.sides import assign
from modelwright.data.corpus.sketch import wanted
from modelwright.errors import ModelwrightError
from tests.data_stage.tiny import SETTINGS, deduplicated, row

GATHERED = [[row("s/a", "one"), row("s/b", "two")], [row("s/c", "three"), row("s/a", "four")]]


def test_two_rows_of_one_id_in_two_units_are_refused(tmp_path):
    with pytest.raises(ModelwrightError, match=r"two rows have the id 's/a' \(units u000 and u001"):
        deduplicated(tmp_path, GATHERED)


def test_ids_that_only_share_a_hash_are_no_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "_digest", lambda kind, name: bytes(8))
    other = [[row(f"s/{i}", f"text {i}") for i in range(3)], [row("s/d", "more")]]
    fates, _ = deduplicated(tmp_path / "other", other)
    assert sorted(fates) == ["s/0", "s/1", "s/2", "s/d"]
    with pytest.raises(ModelwrightError, match="the id 's/a'"):
        deduplicated(tmp_path / "same", GATHERED)


EDGES = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), EDGES, st.randoms())
def test_no_row_leaves_for_one_that_leaves(content, likely, rng):
    first = {c: content.index(c) for c in content}
    exact = [(first[c], i) for i, c in enumerate(content) if first[c] != i]
    near = sorted(
        {(min(p), max(p)) for p in likely if p[0] != p[1] and set(p) <= set(first.values())}
    )
    similarity = np.array([rng.uniform(0.8, 1) for _ in near])
    priority = np.array([rng.randrange(3) for _ in content], np.uint8)
    for ranks in (None, priority):
        found = copies(
            np.array(exact, np.int64).reshape(-1, 2),
            np.array(near, np.int64).reshape(-1, 2),
            similarity,
            ranks,
        )
        keeper = dict(zip(found.rows.tolist(), found.keeper.tolist(), strict=True))
        alike = dict(zip(near, similarity.tolist(), strict=True))
        rank = [(0 if ranks is None else -int(ranks[i]), i) for i in range(len(content))]
        for i, equal, likeness in zip(
            found.rows.tolist(), found.equal.tolist(), found.similarity.tolist(), strict=True
        ):
            k = keeper[i]
            assert keeper[k] == k  # who is kept for others stays
            if k == i:
                continue
            pair = tuple(sorted((first[content[i]], first[content[k]])))
            assert equal == (content[i] == content[k])
            assert likeness == (1 if equal else alike[pair])  # a direct neighbour
            assert min(rank[j] for j in range(len(content)) if content[j] == content[k]) == rank[k]
        stays = {i for i in range(len(content)) if keeper.get(i, i) == i}
        kinds = [content[i] for i in stays]
        assert len(kinds) == len(set(kinds))  # no two equal rows stay
        held = {first[c] for c in kinds}
        assert not any(a in held and b in held for a, b in near)  # nor two that are alike


@settings(max_examples=300, deadline=None)
@given(EDGES)
def test_components_are_those_of_a_walk(edges):
    found = components(30, np.array(edges, np.int64).reshape(-1, 2))
    neighbours = {i: {i} for i in range(30)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    for i in range(30):
        met, todo = set(), [i]
        while todo:
            at = todo.pop()
            if at not in met:
                met.add(at)
                todo += neighbours[at]
        assert found[i] == min(met)


def test_a_long_chain_is_one_component():
    order = np.random.default_rng(0).permutation(5000)
    found = components(5000, np.stack([order[:-1], order[1:]], axis=1))
    assert (found == 0).all()


def singles(count: int, **more) -> list[dict]:
    return [row(f"s/{i}", f"text number {i}", **more) for i in range(count)]


def test_groups_parents_and_copies_stay_together(tmp_path):
    words = " ".join(f"w{i}" for i in range(60))
    rows = [
        row("s/a", "first", groups=["g1"]),
        row("s/b", "second", groups=["g1", "g2"]),
        row("s/c", words, groups=["g2"]),
        row("s/d", words + " more"),
        row("s/e", "child", parents=["s/d"]),
        row("s/f", "other", parents=["gone/1"]),
        row("s/g", "another", parents=["gone/1"]),
        row("s/h", "alone", groups=["s/a"]),  # a group called as a row is no parent
        *singles(40),
    ]
    fates, facts = deduplicated(tmp_path, [rows[:3], rows[3:7], rows[7:]])
    together = {fates[f"s/{c}"]["component"] for c in "abcde"}
    assert len(together) == 1
    assert len({fates[f"s/{c}"]["component"] for c in "fg"}) == 1
    assert fates["s/h"]["component"] not in together
    assert fates["s/d"]["reason"] == "near duplicate"
    assert (fates["s/d"]["kept_id"], fates["s/d"]["split"]) == ("s/c", None)
    assert len({fates[f"s/{c}"]["split"] for c in "abce"}) == 1
    assert facts["components"] == len(rows) - 5


def test_the_split_is_stable_as_data_grow(tmp_path):
    rows = [row(f"s/{i}", f"text {i}", groups=[f"g{i // 3}"]) for i in range(300)]
    before, _ = deduplicated(tmp_path / "a", [rows[:150]])
    after, facts = deduplicated(tmp_path / "b", [rows[:150], rows[150:]])
    assert {i: after[i]["split"] for i in before} == {i: f["split"] for i, f in before.items()}
    assert facts["splits"]["train"] == pytest.approx(180, abs=45)
    other, _ = deduplicated(tmp_path / "c", [rows], SETTINGS | {"seed": 2})
    assert any(other[i]["split"] != after[i]["split"] for i in after)


def test_without_deduplication_all_stay_and_copies_share_a_side(tmp_path):
    rows = [row(f"s/{i}", f"text {i // 2}") for i in range(100)]
    fates, facts = deduplicated(tmp_path, [rows], SETTINGS | {"deduplicate": None})
    assert all(f["kept"] for f in fates.values())
    assert facts["exact"] == 50
    for i in range(0, 100, 2):
        assert fates[f"s/{i}"]["split"] == fates[f"s/{i + 1}"]["split"]


def test_given_splits_win_and_copies_leave_train(tmp_path):
    by = SETTINGS | {"split": {"by": "given"}}
    rows = [
        row("s/a", "same words", meta={"split": "train"}),
        row("s/b", "same words", meta={"split": "test"}),
        row("s/c", "other words", meta={"split": "valid"}),
        row("s/d", "same  words", meta={"split": "dev"}),
    ]
    fates, _ = deduplicated(tmp_path, [rows], by)
    assert {i: f["split"] for i, f in fates.items()} == {
        "s/a": None, "s/b": "test", "s/c": "validation", "s/d": None,
    }  # fmt: skip
    assert fates["s/a"]["kept_id"] == fates["s/d"]["kept_id"] == "s/b"


def test_by_time_the_latest_are_test(tmp_path):
    by = SETTINGS | {"split": {"by": "time", "column": "date", "validation": 0.1, "test": 0.2}}
    rows = [
        row(f"s/{i}", f"text {i}", meta={"date": f"2020-01-{i + 1:02d}"}, groups=[f"g{i % 30}"])
        for i in range(30)
    ]
    fates, _ = deduplicated(tmp_path, [rows[::-1]], by)
    sides = [fates[f"s/{i}"]["split"] for i in range(30)]
    assert sides == ["train"] * 21 + ["validation"] * 3 + ["test"] * 6


def test_stratified_gives_every_side_its_share_of_every_label(tmp_path):
    by = SETTINGS | {"split": {"by": "stratified", "validation": 0.2, "test": 0.2}}
    rows = [
        row(f"s/{i}", f"text {i}", label="rare" if i % 10 == 0 else "often") for i in range(200)
    ]
    fates, _ = deduplicated(tmp_path, [rows], by)
    counts = Counter((fates[r["id"]]["split"], r["label"]) for r in rows)
    for side, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        assert counts[side, "rare"] == pytest.approx(20 * share, abs=1)
        assert counts[side, "often"] == pytest.approx(180 * share, abs=2)


def test_folds_are_disjoint_and_cover_everything():
    roots = np.arange(1000)
    names = np.random.default_rng(0).integers(0, 1 << 63, 1000).astype(np.uint64)
    base = wanted({"split": {"folds": 5, "validation": 0.1}})
    tests = [assign(replace(base, fold=k), roots, names, np.empty(0)) == 2 for k in range(1, 6)]
    assert (np.sum(tests, axis=0) == 1).all()
    assert all(150 < t.sum() < 250 for t in tests)


def test_alarms_name_what_was_lost(tmp_path):
    rows = [row(f"s/{i}", "the same again") for i in range(30)]
    rows += [row(f"t/{i}", f"text {i}", source="t", groups=["one"]) for i in range(30)]
    _, facts = deduplicated(tmp_path, [rows])
    told = "\n".join(facts["alarms"])
    assert "source s: 29 of 30 rows leave as duplicates" in told
    assert "30 rows are copies of s/0" in told
    assert "30 rows from t/0 on are one component" in told
    assert facts["sources"] == {"s": {"rows": 30, "lost": 29}, "t": {"rows": 30, "lost": 0}}
    assert facts["clusters"][0]["kept"] == "s/0"
    assert facts["clusters"][0]["samples"][:2] == ["s/0", "s/1"]
    assert facts["cluster_sizes"] == {"16-31": 1}


def test_the_samples_of_a_cluster_are_of_that_cluster(tmp_path):
    """Two to nine copies of ten texts: no cluster names rows of the next one."""
    rows = [row(f"s/{i}-{copy}", f"text {i}") for i in range(10) for copy in range(i % 8 + 2)]
    _, facts = deduplicated(tmp_path, [rows])
    assert len(facts["clusters"]) == 10
    for cluster in facts["clusters"]:
        text_of = cluster["kept"].partition("-")[0]
        assert {one.partition("-")[0] for one in cluster["samples"]} == {text_of}
        assert len(cluster["samples"]) == min(5, cluster["rows"])
