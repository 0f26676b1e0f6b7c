"""The commands, as a person gives them."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelwright import errors, pipeline, places, recipe
from modelwright.cli import main
from modelwright.runs import Run
from tests.programs import command, environment, the_line, write_corpus

VERBS = (
    *("run", "prepare", "train", "tune", "show", "rates", "crossval", "search", "plan"),
    *("evaluate", "ask", "serve", "runs", "check", "label"),
)
TINY = ("run", "tiny.yaml", "train.steps=6", "tune.steps=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all tests here, with a finished run in runs/tiny."""
    folder = write_corpus(tmp_path_factory.mktemp("commands"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "160")
        assert main(list(TINY)) == 0
        yield folder


@pytest.fixture
def done(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    capsys.readouterr()
    return Run.open(folder / "runs" / "tiny")


def test_help_says_where_to_start_and_what_exit_codes_mean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "modelwright run quickstart" in said
    for verb in VERBS:
        assert re.search(rf"^ +{verb} ", said, re.MULTILINE), verb
    codes = {v for k, v in vars(errors).items() if k.startswith("EXIT_")}
    assert all(re.search(rf"\b{code} +\w", said) for code in codes)
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        told = capsys.readouterr().out
        assert f"modelwright {verb}" in told
        with pytest.raises(SystemExit):
            main(["help", verb])
        assert capsys.readouterr().out == told


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys; sys.argv[1:] = ['--version']; import modelwright.cli as c\n"
    code += "try: c.main()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-1] == "False"


def test_a_run_leaves_everything_in_its_directory(done: Run) -> None:
    left = {p.relative_to(done.path).as_posix() for p in done.path.rglob("*") if p.is_file()}
    assert {
        "recipe.yaml", "resolved.json", "manifest.json", "evaluation.json", "report.html",
        "metrics/train.jsonl", "metrics/tune.jsonl", "samples/train.jsonl", "samples/tune.jsonl",
        "data/waterfall.json", "data/split.json",
    } <= left  # fmt: skip
    assert any(name.startswith("tensorboard/train/") for name in left)
    lines = (done.path / "metrics" / "train.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"loss"' in line]
    assert [s for s in steps if s] == sorted(steps)
    resolved = done.read_json("resolved.json")
    assert resolved["recipe"]["train"]["steps"] == 6
    assert resolved["reasons"]["train.steps"] == "given in the recipe"


def test_a_run_prints_its_answer_on_standard_output_and_all_else_beside_it(
    done: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(TINY)) == 0
    said = capsys.readouterr()
    assert said.out.startswith("\n> What does `textwrap.wrap` do?\n")
    assert said.err.startswith("run: runs/tiny\n")
    assert said.err.count("nothing changed, kept") == 4
    assert "report: runs/tiny/report.html" in said.err


def test_flags_and_overrides_come_in_any_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, arguments in enumerate(
        (
            ["tiny.yaml", "train.steps=3", "--out", "o-0", "seed=9"],
            ["--out", "o-1", "tiny.yaml", "train.steps=3", "seed=9"],
            ["tiny.yaml", "--out=o-2", "train.steps=3", "seed=9"],
        )
    ):
        assert main(["prepare", *arguments]) == 0
        made = Run.open(folder / f"o-{number}").recipe
        assert (made.train.steps, made.seed) == (3, 9)
    assert "prepare: collected" in capsys.readouterr().err


def test_show_a_recipe_and_a_run(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "tiny.yaml", "budget=3m", "train.steps="]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^train\.save_every +5 +given in the recipe", said, re.MULTILINE)
    assert re.search(r"^train\.steps +\(later\) +derived when the data", said, re.MULTILINE)
    assert re.search(r"^train\.optimizer +muon +about 1\.5 x", said, re.MULTILINE)
    assert re.search(r"^data\.clean +False +default", said, re.MULTILINE)
    assert not (done.path.parent.parent / "runs" / "tiny-2").exists()  # showing makes nothing
    assert main(["show", "runs/tiny"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^train\.steps +6 +given in the recipe", said, re.MULTILINE)
    assert re.search(r"^train\.learning_rate +0\.004 +default of muon", said, re.MULTILINE)


def test_show_a_recipe_that_begins_with_published_weights(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they decide is not made up before they are read."""
    (folder / "weights").mkdir()
    text = "budget: 3m\ndata: {source: x}\nmodel: ./weights\ntune: {task: docstrings}\n"
    (folder / "bent.yaml").write_text(text)
    assert main(["show", "bent.yaml"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^tune\.learning_rate +5e-05 +customary", said, re.MULTILINE)
    assert re.findall(r"^model\.\S+", said, re.MULTILINE) == ["model.from"]


def test_evaluate_prints_every_measure(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == pipeline.summary_lines(done.read_json("evaluation.json"))
    assert any("gzip -9" in line and "5-gram" in line for line in lines)
    assert any("base model" in line and "nearest training answer" in line for line in lines)


def test_ask_once_and_again(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--temperature", "1", "--max-tokens", "12"]
    answers = []
    for seed in ("1", "1", "2"):
        assert main(["ask", "runs/tiny", "What is this?", *drawn, "--seed", seed]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]
    assert main(["ask", "runs/tiny", "def ", "--stage", "train", "--max-tokens", "3"]) == 0
    assert capsys.readouterr().out


def test_a_conversation_from_a_pipe(folder: Path) -> None:
    said = command("ask", "runs/tiny", "--max-tokens", "3", cwd=folder, input="one\n\n  \ntwo\n")
    assert said.returncode == 0
    assert said.stderr == ""
    assert said.stdout


def test_runs_are_listed_and_compared(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny.yaml", "train.steps=4", "seed=5", "--out", "runs/other"]) == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^runs/tiny +done", said, re.MULTILINE)
    assert "bits" in said
    assert main(["runs", "runs/tiny", "runs/other"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^seed +3 +5", said, re.MULTILINE)
    assert re.search(r"^train\.steps +6 +4", said, re.MULTILINE)
    assert "bits per byte (lower is better)" in said


def test_a_table_in_one_line_and_no_test_part(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{i % 3 * 4 + i / 50},{'abc'[i % 3]}" for i in range(30)]
    for name, content in (("one", lines), ("two", lines[:20])):
        (folder / f"{name}.csv").write_text("\n".join(["width,kind", *content]) + "\n")
        given = [f"{name}.csv", "task=vector_classification", "train.steps=2"]
        assert main(["run", *given, f"data.split.test={0.2 if name == 'one' else 0}"]) == 0
        said = capsys.readouterr().err
        assert f"{name}.csv: label: column 'kind' (3 classes: a, b, c)" in said
        assert f"report: runs/{name}/report.html" in said
    assert "evaluate: nothing was measured: the test part is empty" in said
    assert main(["evaluate", "runs/two"]) == errors.EXIT_USAGE
    assert "--on FILE" in capsys.readouterr().err
    assert main(["show", *given]) == 0
    assert re.search(r"^train\.steps +2 +given", capsys.readouterr().out, re.MULTILINE)


def test_runs_without_a_question_in_common_are_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["task=sentiment", "train.steps=1", "model.depth=1", "model.width=16"]
    for name in ("low", "high"):
        rows = "\n".join(f"{name} is number {i} here,{'ab'[i % 2]}" for i in range(30))
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}\n")
        assert main(["run", f"{name}.csv", *small]) == 0
    capsys.readouterr()
    assert main(["runs", "runs/low", "runs/high"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^test accuracy", said, re.MULTILINE)
    assert "not compared question by question: runs/low, runs/high: train: no question" in said


def test_check_a_machine_and_a_run(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) in (0, errors.EXIT_MACHINE)
    said = capsys.readouterr().out
    assert "ok  Python" in said
    assert "GFLOP/s" in said
    assert "precision chosen here" in said
    assert main(["check", "runs/tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # after steps 5 and 6, and after step 4 of tune
    assert all(line.startswith("ok  ") for line in lines)


def test_serve_answers_until_it_is_stopped(folder: Path) -> None:
    line = [sys.executable, "-m", "modelwright", "serve", "runs/tiny", "--port", "0"]
    process = subprocess.Popen(
        line, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.fullmatch(r"serving tiny at (http://127\.0\.0\.1:\d+) \(Ctrl-C stops\)\n", first)
        assert found, first
        with httpx.Client(base_url=found[1], timeout=60) as client:
            assert client.get("/health").json()["status"] == "ok"
            assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
            asked = {
                "model": "tiny",
                "max_tokens": 4,
                "messages": [{"role": "user", "content": "a"}],
            }
            answer = client.post("/v1/chat/completions", json=asked)
            assert answer.status_code == 200
            assert answer.json()["usage"]["completion_tokens"] <= 4
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_the_reader_of_the_output_may_leave(folder: Path) -> None:
    reader = ["show", "quickstart"]
    line = f"{shlex.quote(sys.executable)} -m modelwright {' '.join(reader)} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("key")
    assert "Traceback" not in done.stderr


def test_a_bug_of_ours_is_not_hidden(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not the user's mistake keeps its traceback; only memory has a line of its own."""
    monkeypatch.setattr(recipe, "read", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["show", "tiny.yaml"])

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(recipe, "read", full)
    assert main(["show", "tiny.yaml"]) == errors.EXIT_USAGE
    assert "out of memory; lower train.batch" in the_line(capsys.readouterr().err)


def test_signals_are_given_back(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["show", "tiny.yaml", "nonsense"]) == errors.EXIT_USAGE
    assert signal.getsignal(signal.SIGTERM) is before


def test_shipped_recipes_are_named_by_the_help_of_show(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said.replace("- ", "-") for name in places.shipped())
