"""Nothing waits for torch that does not need it; how long it takes: ``make bench NAME=cold_start``.

Every look is in one new process, since this one has long loaded everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

import modelwright
from modelwright import cli
from tests.programs import environment

HEAVY = ("torch", "numpy", "pydantic", "yaml", "rich", "tokenizers", "modelwright.api")
TORCH = ("torch", "tokenizers", "modelwright.api")
LOOKS = """
import contextlib, io, json, sys
import modelwright
looks, heavy = json.loads(sys.stdin.read())
found = {"import modelwright": [m for m in heavy if m in sys.modules]}
dir(modelwright)
from modelwright.cli import main
for words in looks:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stop:  # argparse, after --help
            code = stop.code
    loaded = [m for m in heavy if m in sys.modules]
    found[" ".join(words)] = [code, out.getvalue() + err.getvalue(), loaded]
print(json.dumps(found))
"""


def looked(looks, heavy, folder):
    """What each command says, and which of ``heavy`` are loaded after it."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKS],
        input=json.dumps([looks, heavy]),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def commands(parser, before=()):
    """Every command with its own commands, as words."""
    yield list(before)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*before, name))


def test_no_help_loads_what_only_the_work_needs(tmp_path):
    helps = [[*words, "--help"] for words in commands(cli._parser())]
    assert ["--help"] in helps and ["data", "run", "--help"] in helps and len(helps) > 20
    found = looked([*helps, ["--version"], ["version"]], HEAVY, tmp_path)
    assert found.pop("import modelwright") == []
    for words, (code, said, loaded) in found.items():
        assert (code, loaded) == (0, []), words
        assert "usage: " in said or said == f"modelwright {modelwright.__version__}\n"


def test_a_mistyped_name_is_said_before_anything_heavy_is_loaded(tmp_path):
    recipes = ("run", "prepare", "train", "tune", "show", "rates", "crossval", "search")
    mistakes = {
        ("trian",): "did you mean 'train'?",
        ("train", "quickstart", "--proflie", "3"): "unrecognized arguments",
        **{(verb, "quikstart"): "no such recipe (did you mean 'quickstart'?)" for verb in recipes},
        ("plan", "quikstart", "--on", "8xH100"): "no such recipe (did you mean 'quickstart'?)",
        **{(verb, "runs/nope"): "no such run" for verb in ("evaluate", "ask", "serve", "check")},
        ("export", "runs/nope", "out", "--to", "hub"): "no such run",
        ("ask", "."): "not a run directory",
    }
    found = looked([list(words) for words in mistakes], HEAVY, tmp_path)
    for words, said in mistakes.items():
        code, told, loaded = found[" ".join(words)]
        assert (code, loaded) == (2, []), words
        assert said in told and told.count("\n") == 1


def test_a_list_of_runs_needs_no_torch(tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: mine\n")
    (run / "manifest.json").write_text('{"stages": {"prepare": {"status": "done"}}}')
    code, said, loaded = looked([["runs"]], TORCH, tmp_path)["runs"]
    assert (code, loaded) == (0, []) and "mine" in said


@pytest.mark.parametrize("name", modelwright.__all__)
def test_every_name_of_the_package_stays_what_it_is(name):
    # Importing a module of the package binds it there: none may be called as a function is.
    from modelwright import api

    first = getattr(modelwright, name)
    assert first is getattr(modelwright, name) and name in dir(modelwright)
    assert name == "__version__" or first is getattr(api, name)


def test_a_name_it_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        modelwright.nonsense  # noqa: B018
