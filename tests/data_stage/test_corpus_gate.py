"""A build ends with proof that nothing crosses its split, or does not end well."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data.corpus import components, gate, mend, pairs, records, sketch, spec
from modelwright.data.corpus.build import build
from modelwright.errors import ModelwrightError
from tests.data_stage.corpora import MODULES, finish, make_sources, start, tree

GIVEN = """\
name: given
sources:
  - path: {folder}/rows.jsonl
split: {{by: given}}
deduplicate: {deduplicate}
"""


def quiet(line: str) -> None:
    """Say nothing."""


def given(folder: Path, rows: list[dict[str, Any]], deduplicate: str = "false") -> Path:
    """A corpus whose split is given, row by row."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "given.yaml"
    path.write_text(GIVEN.format(folder=folder, deduplicate=deduplicate))
    return path


def words(number: int, *changed: int) -> str:
    return " ".join(f"w{number}x{i * i}" if i not in changed else "other" for i in range(60))


def rows() -> list[dict[str, Any]]:
    parts = ("train", "validation", "test")
    return [{"text": words(i), "split": parts[i % 3]} for i in range(12)]


def commands(path: Path, corpus: Path) -> tuple[int, str, str]:
    return finish(start("run", path, "--out", corpus, "--engine", "inline"))


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (words(0), "1 exact duplicates: rows/1 (train) and rows/13 (test)"),
        (words(0, 30), "1 near duplicates: rows/1 (train) and rows/13 (test)"),
    ],
)
def test_a_planted_copy_fails_the_command(tmp_path: Path, planted: str, said: str):
    path = given(tmp_path / "in", [*rows(), {"text": planted, "split": "test"}])
    corpus = tmp_path / "corpus"
    code, _, wrong = commands(path, corpus)
    assert (code, len(wrong.splitlines())) == (1, 1)
    assert said in wrong
    found = json.loads((corpus / gate.FOUND).read_text())
    assert found["holds"] is False
    assert not (corpus / "corpus.json").exists()
    assert not (corpus / gate.SCRATCH).exists()
    path = given(tmp_path / "in", [*rows(), {"text": planted, "split": "test"}], "0.8")
    code, told, wrong = commands(path, corpus)
    assert code == 0, wrong
    assert "gate: 12 rows looked at with other hash functions, nothing crosses the split" in told
    assert json.loads((corpus / "corpus.json").read_text())["gate"]["holds"] is True


def test_nothing_is_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    description = spec.read(given(tmp_path / "in", rows()))
    corpus = tmp_path / "corpus"
    first = build(description, corpus, say=quiet)
    before = tree(corpus)
    stamp = (corpus / gate.FOUND).stat().st_mtime_ns
    monkeypatch.setattr(gate, "_look", lambda *_: pytest.fail("looked again"))
    assert build(description, corpus, say=quiet)["gate"] == first["gate"]
    assert (tree(corpus), (corpus / gate.FOUND).stat().st_mtime_ns) == (before, stamp)
    leaking = spec.read(given(tmp_path / "in", [*rows(), {"text": words(0), "split": "test"}]))
    monkeypatch.undo()
    for _ in range(2):  # found once, said twice
        with pytest.raises(ModelwrightError, match="1 exact duplicates") as told:
            build(leaking, corpus, say=quiet)
        assert told.value.exit_code == 1
        monkeypatch.setattr(gate, "_look", lambda *_: pytest.fail("looked again"))


def test_a_split_that_tears_components_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As if ``resolve`` had gone by rows: copies that stay, and groups, are on two sides."""

    def torn(_settings: Any, roots: Any, *_: Any) -> Any:
        return (np.arange(len(roots)) % 3).astype(np.uint8)

    path = make_sources(tmp_path / "in", MODULES[:2])
    path.write_text(path.read_text().replace("deduplicate: 0.8\n", "deduplicate: false\n"))
    monkeypatch.setattr(components, "assign", torn)
    with pytest.raises(gate.SplitLeaksError, match="across the split are"):
        build(spec.read(path), tmp_path / "corpus", say=quiet)
    found = json.loads((tmp_path / "corpus" / gate.FOUND).read_text())
    assert found["exact"] + found["near"] + found["groups"] > 0
    assert not (tmp_path / "corpus" / "stages" / "tokens").exists()  # it fails before


def without_tokens(folder: Path) -> Path:
    path = make_sources(folder, MODULES[:5])
    path.write_text(path.read_text().replace("tokenizer: {vocabulary: 400}\n", ""))
    return path


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deduplication misses every near duplicate, as it misses some by chance; the gate does not."""
    seen = pairs.pairs

    def missing(arguments: dict[str, Any], out: Path) -> Any:
        facts = seen(arguments, out)
        if Path(arguments["corpus"]).name != gate.SCRATCH:
            sketch.save(out, "near", np.empty((0, 2), np.int64))
            sketch.save(out, "rows", np.empty(0, np.int64))
        return facts

    monkeypatch.setattr(pairs, "pairs", missing)


def test_copies_that_were_missed_are_found_and_decided_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = without_tokens(tmp_path / "in")
    blind(monkeypatch)
    said: list[str] = []
    made = build(spec.read(path), tmp_path / "corpus", say=said.append)
    assert made["gate"]["holds"] is True
    (told,) = [line for line in said if "decided again" in line]
    missed = json.loads((tmp_path / "corpus" / mend.MISSED).read_text())["pairs"]
    assert len(missed) == int(told.split()[1]) > 0
    fates = {}
    for file in (tmp_path / "corpus" / "stages" / "resolve" / "all").glob("*.parquet"):
        fates |= {fate["id"]: fate for fate in records.rows(file)}
    for one, two, similarity in missed:
        (left,) = [fates[i] for i in (one, two) if not fates[i]["kept"]]
        assert (left["reason"], left["similarity"]) == ("near duplicate", similarity)
    before = tree(tmp_path / "corpus")
    said.clear()
    build(spec.read(path), tmp_path / "corpus", say=said.append)
    assert all("nothing changed" in line or "nothing crosses" in line for line in said)
    assert tree(tmp_path / "corpus") == before


def test_killed_between_two_rounds_it_decides_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = without_tokens(tmp_path / "in")
    blind(monkeypatch)
    build(spec.read(path), tmp_path / "calm", say=quiet)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for place in ("mend.store", "components.placed"):
        name, _, function = place.partition(".")
        whole = getattr({"mend": mend, "components": components}[name], function)
        if name == "components":  # of the first round nothing is known: only the second is killed

            def killed(pairs: Any, names: Any, whole: Any = whole) -> Any:  # type: ignore[misc]
                if pairs:
                    raise KeyboardInterrupt
                return whole(pairs, names)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr({"mend": mend, "components": components}[name], function, killed)
            build(spec.read(path), tmp_path / name, say=quiet)
        build(spec.read(path), tmp_path / name, say=quiet)
        assert tree(tmp_path / name) == tree(tmp_path / "calm")


def test_a_view_stands_for_its_row():
    names = np.array([sketch.row_hash(f"s/{i}") for i in range(4)], np.uint64)
    pairs_ = [
        ["s/0~2", "s/3", None],
        ["s/1", "s/2", 0.81],
        ["s/1~1", "s/0", 0.9],
        ["x", "s/1", 1.0],
    ]
    near, similarity, together = mend.placed(pairs_, names)
    assert (near.tolist(), similarity.tolist()) == ([[1, 2]], [0.81])
    assert together.tolist() == [[0, 3], [0, 1]]
    assert mend.placed([], names)[0].shape == (0, 2)


def test_engines_find_the_same(tmp_path: Path):
    path = given(tmp_path / "in", [*rows(), {"text": words(3, 9), "split": "validation"}])
    found = []
    for engine in ("inline", "pool"):
        with pytest.raises(gate.SplitLeaksError):
            build(spec.read(path), tmp_path / engine, engine=engine, workers=2, say=quiet)
        found.append((tmp_path / engine / gate.FOUND).read_bytes())
    assert found[0] == found[1]


def test_a_look_that_was_killed_is_gone_on_with(tmp_path: Path):
    """Killed after its first unit: that unit is kept, the answer is the same."""
    path = make_sources(tmp_path / "in", MODULES[:3])
    corpus = tmp_path / "corpus"
    process = start("run", path, "--out", corpus, "--engine", "pool", "--workers", 1)
    assert process.stdout is not None
    while process.poll() is None:
        if any((corpus / gate.SCRATCH / "stages" / "read").glob("*.json")):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)
    code, told, wrong = finish(start("run", path, "--out", corpus, "--engine", "inline"))
    assert code == 0, wrong
    assert "nothing crosses the split" in told
    assert not (corpus / gate.SCRATCH).exists()
    again = finish(start("run", path, "--out", tmp_path / "calm", "--engine", "inline"))
    assert again[0] == 0
    assert tree(corpus) == tree(tmp_path / "calm")
