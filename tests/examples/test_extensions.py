"""The six extensions of examples/, each by naming its file in a recipe: every stage, every use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from modelwright import api, extensions
from modelwright.runs import Run
from tests.own_code import FOLDER
from tests.programs import Programs, outcome, the_line
from tests.serving.parts import running

STEPS = 8
# Ends the process as `kill -9` does, after the step that follows the first checkpoint.
KILLED = """
import os
from modelwright.pipeline.watch import StageObserver
after_step = StageObserver.after_step
def then_killed(self, record, *, last):
    after_step(self, record, last=last)
    if record.step == 4:
        os.kill(os.getpid(), 9)
StageObserver.after_step = then_killed
"""
DIGIT = str([[0, 2, 5, 13, 9, 1, 0, 0]] * 8)


@dataclass(frozen=True)
class Case:
    """One extension: where its data lie, what is asked, and what is measured."""

    overrides: tuple[str, ...]
    question: str
    wrong: str  # a question that it cannot read
    measures: tuple[str, ...]
    data: str = ""


CASES = {
    "tabular_regression": Case(
        (), "[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.86, 87]", "[1, 2]",
        ("test mean absolute error", "test R²"),
    ),
    "digit_and_parity": Case(
        ("data.limit=300",), DIGIT, "[[1, 2]]",
        ("test digit right", "test parity right", "test both right"),
    ),
    "slot_tagging": Case(
        ("model.width=16", "data.limit=500", "data.split.by=row"),
        "play some jazz", " ", ("test slot F1", "test words right"), "snips_nlu",
    ),
    "audio_convolution": Case(
        ("model.width=8", "data.limit=600", "train.options.bands=8"),
        str([[float(i + j) for i in range(8)] for j in range(9)]), "[1, 2]",
        ("test accuracy", "test calibration error"), "fsdd",
    ),
    "pairwise_ranking": Case(
        ("data.limit=600",), str([[1.0] * 10, [2.0] * 10]), "[[1], [2]]",
        ("test accuracy", "test calibration error"),
    ),
    "tic_tac_toe": Case(
        ("data.limit=300",), "X...O....", "X",
        ("test accuracy", "test calibration error", "test perfect moves", "test games not lost"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("extensions"))


@pytest.fixture(params=sorted(CASES), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def line(name: str, data: Callable[[str], Path]) -> list[str]:
    """The command that runs the extension's own recipe, with a few quick steps."""
    case = CASES[name]
    few = f"steps={STEPS} epochs=null batch=8 save_every=3 validate_every=4 threads=1".split()
    overrides = [*(f"train.{value}" for value in few), "train.precision=float32", *case.overrides]
    if case.data:
        overrides.append(f"data.path={data(case.data)}")
    return ["run", str(FOLDER / f"{name}.yaml"), *overrides]


@pytest.fixture(scope="module")
def run(name: str, line: list[str], programs: Programs) -> Run:
    """The finished run of an extension."""
    programs.run(*line, "--out", name)
    return Run.open(programs.cwd / name)


def test_every_stage_is_done_and_measured(name: str, run: Run) -> None:
    assert {run.stage(s)["status"] for s in ("prepare", "train", "evaluate")} == {"done"}
    measures = run.read_json("evaluation.json")["measures"]
    assert tuple(m["name"] for m in measures) == CASES[name].measures
    for measure in measures:
        assert measure["rows"][0]["who"] == "ours"
        assert len(measure["rows"]) > 1, "no baseline"
    assert (run.path / "report.html").stat().st_size > 1000


def test_the_run_keeps_the_code_and_the_checkpoint_its_hash(name: str, run: Run) -> None:
    reference = extensions.trust(FOLDER / f"{name}.py")
    (copy,) = (run.path / extensions.FOLDER).iterdir()
    assert copy.read_bytes() == (FOLDER / f"{name}.py").read_bytes()
    assert extensions.references(run.recipe.model_dump()) == [reference]
    (newest,) = run.path.glob(f"checkpoints/train/step-{STEPS:08}")
    said = [(newest / f).read_text() for f in ("task.json", "model.json", "codec/kind.json")]
    assert any(reference in text for text in said)


def test_it_answers_at_the_terminal_and_to_the_server(name: str, run: Run) -> None:
    case = CASES[name]
    model = api.load(run)
    answer = model(case.question)
    assert answer
    assert model.said(case.question).startswith(answer)
    served_by = running(model.answerer.server())
    with served_by as served, httpx.Client(base_url=served.url, timeout=60) as http:
        for stream in (False, True):
            body = {"model": "tiny", "messages": [{"role": "user", "content": case.question}]}
            response = http.post("/v1/chat/completions", json={**body, "stream": stream})
            assert response.status_code == 200, response.text
            assert answer in response.text
        body["messages"][0]["content"] = case.wrong
        refused = http.post("/v1/chat/completions", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_question"
        body["messages"] *= 2
        assert http.post("/v1/chat/completions", json=body).status_code == 400
        assert http.get("/health").json()["status"] == "ok"


def test_killed_and_resumed_is_never_killed(
    name: str, line: list[str], run: Run, programs: Programs
) -> None:
    out = f"{name}-killed"
    programs.run(*line, "--out", out, code=-9, before=KILLED)
    assert [p.name for p in (programs.cwd / out / "checkpoints" / "train").iterdir()] == [
        "step-00000003"
    ]
    programs.run("run", out)  # by its folder: the code is known from the first time
    assert outcome(programs.cwd / out) == outcome(run.path)


def test_it_is_exported_or_refused_in_one_line(name: str, run: Run, programs: Programs) -> None:
    said = programs.run("export", name, f"{name}-hub", "--to", "hub", code=2)
    assert "no published layout" in the_line(said)
    goes = name in ("audio_convolution", "tic_tac_toe")  # whose codec is one of the package
    said = programs.run(
        "export", name, f"{name}-graph", "--to", "torch-export", code=2 * (not goes)
    )
    assert "samples replayed" in said if goes else "use --to hub" in the_line(said)


def test_the_table_says_how_long_each_file_is(name: str) -> None:
    page = (FOLDER.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| [{name}.py]"))
    lines = len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines())
    assert row.split("|")[3:5] == [f" {lines} ", " 0 "]


@pytest.mark.parametrize("name", ["tabular_regression"], indirect=True, scope="module")
def test_cross_validation_finds_the_code_again(run: Run, name: str, programs: Programs) -> None:
    programs.run("crossval", name, "--folds", "2", "--out", "folds")
    result = json.loads((programs.cwd / "folds" / "crossval.json").read_text())
    assert [m["name"] for m in result["measures"]][:2] == [
        "held-out mean absolute error",
        "held-out R²",
    ]
