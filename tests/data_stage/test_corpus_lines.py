"""Lines that the whole corpus repeats are counted before it is read, and cut out of every row."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data import line_counts
from modelwright.data.corpus import spec
from modelwright.data.corpus.build import build
from modelwright.data.corpus.open import corpus_rows
from modelwright.data.corpus.plan import plan
from modelwright.errors import ModelwrightError
from tests.data_stage.corpora import MODULES, finish, make_sources, pieces, start, tree

NOTICE = "# All rights of this standard library page are reserved."
STEPS = "steps: [repair, {{substrings: {{corpus: true, rows: {rows}, words: 0}}}}]"


def quiet(line: str) -> None:
    """Say nothing."""


def described(folder: Path, rows: int = 20, modules: Any = MODULES[:4]) -> Path:
    """The sources of ``corpora`` with a notice in every piece, and the step that is to find it."""
    path = make_sources(folder, modules)
    for file in (folder / "pieces").glob("*.jsonl"):
        given = [json.loads(line) for line in file.read_text().splitlines()]
        for row in given:
            row["text"] = f"{NOTICE}\r\n{row['text']}"
        file.write_text("".join(json.dumps(row) + "\n" for row in given))
    text = path.read_text().replace("steps: [repair, pii]", STEPS.format(rows=rows))
    path.write_text(text.replace("tokenizer: {vocabulary: 400}\n", ""))
    return path


def test_what_is_repeated_goes_and_nothing_else(tmp_path: Path):
    path = described(tmp_path / "in", rows=5)
    build(spec.read(path), tmp_path / "corpus", say=quiet)
    texts = {row["id"]: row["text"] for row in corpus_rows(tmp_path / "corpus")}
    assert not [name for name, text in texts.items() if NOTICE in text]
    times: Counter[str] = Counter()
    for module in MODULES[:4]:
        own = pieces(module)
        copied = [own[0]["text"], own[1]["text"] + "# the end\n"]
        for text in [*(row["text"] for row in own), *copied]:
            times.update({line.strip() for line in text.split("\n") if len(line.strip()) >= 20})
    gone = {line for line, count in times.items() if count > 5}
    assert gone  # real lines are repeated as well, such as "raise ValueError..."
    lines = line_counts.load(tmp_path / "corpus" / "stages" / "repeated" / "all" / "lines.npy")
    assert set(lines.tolist()) == {line_counts.line_hash(line) for line in (*gone, NOTICE)}
    kept = {line.strip() for text in texts.values() for line in text.split("\n")}
    assert not kept & gone
    seen = {line for line, count in times.items() if count <= 5}
    assert len(seen & kept) > 0.9 * len(seen)


def test_engines_leave_the_same_bytes_and_what_is_counted_is_kept(tmp_path: Path):
    path = described(tmp_path / "in", modules=MODULES[:2])
    trees = []
    for name in ("inline", "pool"):
        build(spec.read(path), tmp_path / name, engine=name, workers=2, say=quiet)
        trees.append(tree(tmp_path / name))
    assert trees[0] == trees[1]
    assert any(name.startswith("stages/lines/") for name in trees[0])
    said: list[str] = []
    build(spec.read(path), tmp_path / "inline", say=said.append)
    assert any(line.startswith("lines: nothing changed") for line in said)
    assert any(line.startswith("read: nothing changed") for line in said)
    assert tree(tmp_path / "inline") == trees[0]
    path.write_text(path.read_text().replace("rows: 20", "rows: 2000"))
    said.clear()
    build(spec.read(path), tmp_path / "inline", say=said.append)
    assert any(line.startswith("lines: nothing changed") for line in said)  # only the limit did
    assert all(NOTICE in row["text"] for row in corpus_rows(tmp_path / "inline")
               if "pieces" in row["id"])  # fmt: skip


def test_without_the_step_the_stage_goes(tmp_path: Path):
    path = described(tmp_path / "in", modules=MODULES[:1])
    build(spec.read(path), tmp_path / "corpus", say=quiet)
    path.write_text(path.read_text().replace("corpus: true, rows: 20, ", ""))
    build(spec.read(path), tmp_path / "corpus", say=quiet)
    build(spec.read(path), tmp_path / "fresh", say=quiet)
    assert tree(tmp_path / "corpus") == tree(tmp_path / "fresh")


def test_a_plan_before_and_after(tmp_path: Path):
    path = described(tmp_path / "in", modules=MODULES[:1])
    before = plan(spec.read(path), tmp_path / "corpus", say=quiet)
    assert "lines: 3 units, counted before read" in before
    assert "read: 3 units, 0 done, 3 to do" in before
    build(spec.read(path), tmp_path / "corpus", say=quiet)
    assert "read: 3 units, 3 done, 0 to do" in plan(spec.read(path), tmp_path / "corpus", quiet)


def test_a_run_killed_while_counting_goes_on(tmp_path: Path):
    path = described(tmp_path / "in", modules=MODULES[:3])
    corpus = tmp_path / "corpus"
    process = start("run", path, "--out", corpus, "--engine", "pool", "--workers", 1)
    while process.poll() is None and not any((corpus / "stages" / "lines").glob("*.json")):
        pass
    process.kill()
    process.communicate()
    for place in (corpus, tmp_path / "calm"):
        code, _, wrong = finish(start("run", path, "--out", place, "--engine", "inline"))
        assert code == 0, wrong
    assert tree(corpus) == tree(tmp_path / "calm")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[{substrings: {corpus: true, rows: 0}}]", "rows: 0: must be 1 or more"),
        ("[{substrings: {corpus: true, lines: a.npy}}]", "leave `lines` or `corpus` out"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, steps: str, said: str):
    text = f"sources: [{{path: {tmp_path}}}]\nsteps: {steps}\n"
    with pytest.raises(ModelwrightError, match=said):
        spec.parse(text, "corpus.yaml")


def test_two_passes_are_refused(tmp_path: Path):
    path = described(tmp_path / "in", modules=MODULES[:1])
    both = "steps: [{substrings: {corpus: true}}, {substrings: {corpus: true}}]"
    path.write_text(path.read_text().replace(STEPS.format(rows=20), both))
    with pytest.raises(ModelwrightError, match="two of them ask for `corpus: true`"):
        build(spec.read(path), tmp_path / "corpus", say=quiet)


def test_cutting_lines_goes_by_their_hashes():
    text = "a line that is long enough to count\nshort\n  another line that is long enough  \n"
    lines = np.sort(np.array([line_counts.line_hash(x) for x in text.split("\n")], np.uint64))
    assert line_counts.without(text, lines) == "short\n"
    assert line_counts.without(text, lines[:0]) == text
