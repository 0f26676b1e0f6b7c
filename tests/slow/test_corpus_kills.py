"""Kill -9 at fifty random moments of a pipeline with two workers; by hand, some minutes.

    python -m pytest tests/slow/test_corpus_kills.py -s

Three in four runs are killed and gone on with, the rest begin anew, so that every stage is hit.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.data_stage.corpora import MODULES, finish, make_sources, tree
from tests.data_stage.test_corpus_kill import kill_at, prove, run, undisturbed

KILLS = 50


def test_fifty_kills(tmp_path: Path):
    path = make_sources(tmp_path / "in", MODULES)
    expected, seconds = undisturbed(path, tmp_path / "calm")
    chance = random.Random(50)
    corpus, killed, finished = tmp_path / "killed", 0, 0
    while killed < KILLS:
        if kill_at(path, corpus, chance.uniform(0.05, 1.0) * seconds):
            killed += 1
        else:
            assert tree(corpus) == expected
            prove(corpus)
            finished += 1
        if (corpus / "corpus.json").exists() or chance.random() < 0.25:
            shutil.rmtree(corpus, ignore_errors=True)
    code, _, wrong = finish(run(path, corpus))
    assert code == 0, wrong
    assert tree(corpus) == expected
    prove(corpus)
    print(f"{killed} kills, {finished} runs ended between them, {len(expected)} files the same")
