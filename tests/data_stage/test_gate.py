"""The gate fails for everything that crosses a split, and for nothing else."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import records
from modelwright.data.corpus.gate import SCRATCH, audit
from modelwright.errors import CorruptError
from tests.data_stage.tiny import SETTINGS, deduplicated, row

WORDS = [f"w{i}" for i in range(3000)]
SIDES = ("train", "validation", "test")


def text(seed: int, *changed: int, length: int = 80) -> str:
    words = random.Random(seed).choices(WORDS, k=length)
    return " ".join(f"other{i}" if i in changed else w for i, w in enumerate(words))


def final(folder, rows: list[dict], units: int = 2) -> list:
    """Tables of final rows, as the stage write leaves them."""
    files = []
    for i in range(units):
        path = folder / f"rows-{i}.parquet"
        with records.Writer(path, records.FINAL) as writer:
            for one in rows[i::units]:
                writer.add([*records.record_values(one), one["split"]], 100)
        files.append(path)
    return files


def looked_at(folder, rows: list[dict], settings=SETTINGS, units: int = 2):
    return audit(folder, settings, final(folder, rows, units))


def clean() -> list[dict]:
    return [row(f"s/{i}", text(i), split=SIDES[i % 3]) for i in range(30)]


def test_a_clean_split_holds(tmp_path):
    rows = clean()
    rows += [row("s/x", text(0), split="train"), row("s/y", text(1, 5), split="validation")]
    gate = looked_at(tmp_path, rows)
    assert gate.holds
    assert gate.rows == {"train": 11, "validation": 11, "test": 10}
    assert (gate.exact, gate.near, gate.groups, gate.parents, gate.examples) == (0, 0, 0, 0, ())
    assert not (tmp_path / SCRATCH).exists()
    json.dumps(gate.to_dict())


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("exact", {"text": "the  same café"}, {"text": " the same cafe\u0301"}),
        ("near", {"text": text(90)}, {"text": text(90, 40)}),
        ("groups", {"text": "p", "groups": ["a", "g"]}, {"text": "q", "groups": ["g"]}),
        ("parents", {"text": "p"}, {"text": "q", "parents": ["s/one"]}),
        ("parents", {"text": "p", "parents": ["x"]}, {"text": "q", "parents": ["x"]}),
        (
            "exact",
            {"text": None, "media": b"PNG", "modality": "image"},
            {"text": "a caption", "media": b"PNG", "modality": "image"},
        ),
    ],
)
def test_each_thing_that_crosses_fails(tmp_path, kind, one, two):
    rows = [*clean(), row("s/one", **one, split="train"), row("s/two", **two, split="test")]
    gate = looked_at(tmp_path, rows)
    assert not gate.holds
    found = {k: getattr(gate, k) for k in ("exact", "near", "groups", "parents")}
    assert found == {"exact": 0, "near": 0, "groups": 0, "parents": 0} | {kind: 1}
    (example,) = gate.examples
    assert sorted(example["ids"]) == ["s/one", "s/two"]
    assert sorted(example["splits"]) == ["test", "train"]
    rows[-1]["split"] = "train"
    assert looked_at(tmp_path, rows).holds


def test_all_planted_copies_are_counted(tmp_path):
    rows = [row(f"s/{i}", text(i), split="train") for i in range(200)]
    rows += [row(f"e/{i}", text(i) + "\n", split="test") for i in range(0, 200, 4)]
    rows += [row(f"n/{i}", text(i, 10), split="validation") for i in range(1, 200, 4)]
    gate = looked_at(tmp_path, rows, units=3)
    assert (gate.exact, gate.near) == (50, 50)


def test_a_given_split_may_tear_groups_but_not_copies(tmp_path):
    by = SETTINGS | {"split": {"by": "given"}}
    rows = [
        row("s/a", "one", groups=["g"], split="train"),
        row("s/b", "two", groups=["g"], split="test"),
    ]
    gate = looked_at(tmp_path, rows, by)
    assert (gate.holds, gate.groups) == (True, 1)
    rows[1]["text"] = "one"
    assert not looked_at(tmp_path, rows, by).holds


@settings(  # not random: one pair in ten thousand at the threshold is missed by either side
    derandomize=True,
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_resolve_decides_passes_the_gate(tmp_path_factory, data):
    """Any rows, whatever they share, with and without deduplication."""
    names = [f"s/{i}" for i in range(data.draw(st.integers(1, 25)))]
    rows = [
        row(
            name,
            text(data.draw(st.integers(0, 9)), *data.draw(st.sets(st.integers(0, 9), max_size=3))),
            groups=data.draw(st.lists(st.sampled_from("ghijk"), max_size=1)),
            parents=data.draw(st.lists(st.sampled_from(names), max_size=1)),
        )
        for name in names
    ]
    drop = data.draw(st.sampled_from([None, {"threshold": 0.8}]))
    of = SETTINGS | {"deduplicate": drop, "split": {"validation": 0.3, "test": 0.3}}
    folder = tmp_path_factory.mktemp("corpus")
    fates, _ = deduplicated(folder, [rows[:10], rows[10:]], of)
    kept = [one | {"split": fates[one["id"]]["split"]} for one in rows if fates[one["id"]]["kept"]]
    assert looked_at(folder, kept, of).holds


def test_an_unknown_side_is_told(tmp_path):
    with pytest.raises(CorruptError, match="row 's/a' is in split 'trian'"):
        looked_at(tmp_path, [row("s/a", "x", split="trian")])
    assert not (tmp_path / SCRATCH).exists()


def test_an_empty_corpus_holds(tmp_path):
    assert looked_at(tmp_path, []).holds
    assert audit(tmp_path, SETTINGS, []).holds
