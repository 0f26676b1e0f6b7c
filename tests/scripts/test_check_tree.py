from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(tree: Path | None = None) -> tuple[int, list[str]]:
    command = [sys.executable, str(ROOT / "scripts" / "check_tree.py")]
    done = subprocess.run(
        command + ([str(tree)] if tree else []), capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()[:-1]


def source(tree: Path, text: str, folder: str = "src") -> Path:
    (tree / folder).mkdir(exist_ok=True)
    (tree / folder / "m.py").write_text(text)
    return tree


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "import subprocess as s\ns.run('ls', shell=True)",
        "def f(x, **k): ...\nf(1, allow_pickle=1)",
        "def f(x, **k): ...\nf(1, trust_remote_code=True)",
        "eval('1')",
        "from os import system",
    ],
)
def test_what_runs_foreign_code_is_found(tmp_path: Path, text: str) -> None:
    code, found = check(source(tmp_path, text))
    line = len(text.splitlines())
    assert code == 1
    assert len(found) == 1
    assert f"m.py:{line}:" in found[0] and "is banned" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        '"""Never pickle, never torch.load(x), never shell=True."""',
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "def f(model): model.eval()",
        "import json\njson.load(open('x'))",
    ],
)
def test_what_only_speaks_of_it_passes(tmp_path: Path, text: str) -> None:
    assert check(source(tmp_path, text)) == (0, [])


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "scripts"])
def test_500_lines_pass_and_501_do_not(tmp_path: Path, folder: str) -> None:
    assert check(source(tmp_path, "x = 1\n" * 500, folder)) == (0, [])
    code, (found,) = check(source(tmp_path, "x = 1\n" * 501, folder))
    assert code == 1
    assert "501 lines, at most 500" in found


def test_this_repository_passes() -> None:
    code, found = check()
    assert code == 0, "\n".join(found)
