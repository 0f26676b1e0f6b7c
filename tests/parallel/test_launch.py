"""The launcher's line, and what the world refuses in one line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.training.parallel import SERIAL, World
from tests.parallel.jobs import recipe
from tests.programs import command, environment, the_line, write_corpus

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def test_the_exact_line_is_said_and_run(tmp_path: Path) -> None:
    """A launcher that shows its own arguments: they are the line that was said."""
    write_corpus(tmp_path)
    show = tmp_path / "show.py"
    show.write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    name = str(recipe(tmp_path, "a", steps=5))
    launcher = f"{shlex.quote(sys.executable)} {shlex.quote(str(show))} --nproc-per-node 4"
    done = command("train", name, "train.steps=3", "--launch", launcher, cwd=tmp_path)
    said, ran = done.stdout.splitlines()
    assert shlex.split(said)[2:] == yaml.safe_load(ran)
    assert shlex.split(said)[-5:] == ["-m", "modelwright", "train", name, "train.steps=3"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("given", ["", "3"])
def test_every_process_gets_its_share_of_the_processors(tmp_path: Path, given: str) -> None:
    """torchrun would give each one thread; what the user says of threads stays."""
    show = tmp_path / "show.py"
    show.write_text("import os; print(os.environ['OMP_NUM_THREADS'])")
    here = {**environment(), "OMP_NUM_THREADS": given}
    here = here if given else {k: v for k, v in here.items() if k != "OMP_NUM_THREADS"}
    launcher = f"{shlex.quote(sys.executable)} {shlex.quote(str(show))} --nproc_per_node=2"
    words = [sys.executable, "-m", "modelwright", "train", "quickstart", "--launch", launcher]
    done = subprocess.run(words, cwd=tmp_path, env=here, capture_output=True, text=True, check=True)
    said, ran = done.stdout.splitlines()
    each = given or str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert ran == each
    assert said.startswith(f"OMP_NUM_THREADS={each} ") == (not given)


@pytest.mark.parametrize(
    ("launcher", "says"), [("no-such-launcher -n 2", "no program"), ("", "is empty"), ("'", "No")]
)
def test_a_launcher_that_cannot_be_is_one_line(
    launcher: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "quickstart", "--launch", launcher]) != 0
    assert says in the_line(capfd.readouterr().err)


@pytest.mark.parametrize(
    ("size", "tensor", "context", "says"),
    [
        (4, 3, 1, "tensor: 3 does not divide the 4 processes"),
        (4, 1, 3, "context: 3 does not divide the 4 processes"),
        (4, 2, 1, "need shard: fsdp or hybrid"),
        (4, 2, 2, "tensor=2 and context=2 exclude each other"),
    ],
)
def test_processes_that_cannot_be_divided_so(
    size: int, tensor: int, context: int, says: str
) -> None:
    with pytest.raises(ModelwrightError, match=says):
        World(size=size).connect(shard="none", tensor=tensor, context=context, timeout=1)


def test_one_process_needs_nothing() -> None:
    assert SERIAL.alone
    assert SERIAL.is_main
    SERIAL.connect(shard="fsdp", tensor=1, timeout=1)
    assert SERIAL.control is None
    assert SERIAL.sum(1, 2.5) == [1, 2.5]
    assert SERIAL.agree(True)
    assert not SERIAL.agree(False)
    assert SERIAL.gather("words") == ["words"]
    assert SERIAL.told("words") == "words"


@pytest.mark.parametrize("name", ["slurm.sh"])
def test_the_scripts_of_the_guide_are_bash(name: str) -> None:

    subprocess.run(["bash", "-n", GUIDES / "cluster" / name], check=True)


def test_the_manifests_of_the_guide_are_yaml() -> None:
    documents = list(yaml.safe_load_all((GUIDES / "cluster" / "kubernetes.yaml").read_text()))
    assert [d["kind"] for d in documents] == ["Service", "PersistentVolumeClaim", "Job"]
    job = documents[-1]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
