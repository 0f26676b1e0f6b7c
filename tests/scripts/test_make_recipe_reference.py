"""The reference of recipe keys says what the code says, and notices when it does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright import recipe
from modelwright.tasks.task import names as task_names

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "make_recipe_reference.py"
PAGE = ROOT / "docs" / "guides" / "recipes.md"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_recipe_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_repository_is_up_to_date(script, capsys):
    assert script.main(["--check", "--page", str(PAGE)]) == 0, capsys.readouterr().out


def test_every_key_and_every_task_is_there_and_has_a_meaning(script):
    made = script.reference()
    sections = {"": recipe.Recipe, "data.": recipe.Data, "data.split.": recipe.Split}
    sections |= {"train.": recipe.Stage, "evaluate.": recipe.Evaluation}
    for prefix, section in sections.items():
        for name, field in section.model_fields.items():
            assert f"| `{prefix}{name}` |" in made
            assert field.description, f"{section.__name__}.{name} has no description"
    for task in task_names():
        assert f"| `{task}` |" in made


def test_a_stale_page_is_noticed_and_renewed(script, tmp_path, capsys):
    page = tmp_path / "recipes.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("`data.limit`", "`data.limits`"))
    assert script.main(["--check", "--page", str(page)]) == 1
    assert "does not say what the code says" in capsys.readouterr().out
    assert script.main(["--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_it_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "make_recipe_reference: up to date\n")
