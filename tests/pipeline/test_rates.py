"""`modelwright rates`: a suggestion that a recipe can take, and a run that is none the wiser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelwright import api
from modelwright.cli import main
from tests.programs import outcome, write_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("rates"))


def test_it_suggests_and_leaves_the_run_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["train.steps=4", f"data.source={folder / 'corpus.jsonl'}"]
    recipe, out = str(folder / "tiny.yaml"), folder / "tried"
    assert main(["rates", recipe, *more, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("<- use this") == 1
    last = said.splitlines()[-1]
    found = dict(re.findall(r"train\.(\w+)=(\S+)", last))
    assert set(found) == {"learning_rate", "matrix_learning_rate"}
    assert 1e-3 < float(found["matrix_learning_rate"]) < 0.5
    assert not (out / "checkpoints").exists()

    api.train(recipe, *more, out=out)
    untouched = api.train(recipe, *more, out=folder / "plain")
    assert parameters(out) == parameters(untouched.path)
    before = parameters(out)
    assert main(["rates", str(out)]) == 0  # of a run that is trained, too
    assert main(["rates", str(out), "--stage", "tune"]) == 0
    assert parameters(out) == before
    taken = api.train(recipe, *more, *last.split(), out=folder / "taken")
    assert parameters(taken.path) != before


def test_there_must_be_something_to_tune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [f"data.source={folder / 'corpus.jsonl'}", "--out", str(folder / "none")]
    assert main(["rates", str(folder / "tiny.yaml"), *more, "--stage", "tune"]) == 2
    assert "nothing trained to tune" in capsys.readouterr().err


def parameters(run: Path) -> dict[str, bytes]:
    return {k: v for k, v in outcome(run).items() if isinstance(v, bytes)}
