"""The map shows what the imports are, is noticed when stale, and refuses circles."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_map.py"
FILES = {
    "errors.py": "class Wrong(Exception):\n    pass\n",
    "types.py": "import os\nfrom house.errors import Wrong\nROW = dict\n_hidden = 1\n",
    "data/__init__.py": "",
    "data/read.py": "from house import types\n\ndef read():\n    return types.ROW\n",
    "cli.py": (
        "from typing import TYPE_CHECKING\n"
        "from house.errors import Wrong\n"
        "if TYPE_CHECKING:\n    from house.studio import page\n"
        "def main():\n    from house.data.read import read\n    return read()\n"
    ),
    "studio.py": "import house.cli\n",
    "__init__.py": "from house.cli import main\n",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_map", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_map"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_map"]


@pytest.fixture
def house(tmp_path):
    folder = tmp_path / "house"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def page(tmp_path, script):
    path = tmp_path / "page.md"
    path.write_text(f"# Before\n\n{script.BEGIN}\n{script.END}\n\nafter\n")
    return path


@pytest.fixture
def arguments(page, house):
    return ["--page", str(page), "--package", str(house)]


def test_the_page_of_the_repository_is_up_to_date(script, capsys):
    assert script.main(["--check"]) == 0, capsys.readouterr().out


def test_imports_within_functions_count_and_those_for_the_type_checker_do_not(script, house):
    assert script.rooms_of(script.modules(house)) == {
        "cli": {"data", "errors"},
        "data": {"types"},
        "errors": set(),
        "studio": {"cli"},
        "types": {"errors"},
    }


def test_the_drawing_leaves_out_what_a_longer_way_says(script, page, arguments):
    assert script.main(arguments) == 0
    text = page.read_text()
    assert "  cli --> data\n  data --> types\n  types --> errors\n```" in text
    assert "| `cli` | `data`, `errors` |" in text
    assert text.startswith("# Before\n") and text.endswith("\nafter\n")
    # read: one name; used elsewhere: read, by cli.
    assert "| `data` | 2 | 4 | 1 | 1 | `data.read` 4 | `data.read:read` 2 |" in text
    assert "| `types` | 1 | 4 | 1 | 1 |" in text


def test_a_new_edge_makes_it_stale_and_a_longer_file_does_not(script, house, arguments, capsys):
    assert script.main([*arguments, "--check"]) == 1  # nothing drawn yet
    assert script.main(arguments) == 0
    with (house / "types.py").open("a") as file:
        file.write("def more():\n    return 1\n")
    assert script.main([*arguments, "--check"]) == 0
    with (house / "studio.py").open("a") as file:
        file.write("from house.types import ROW\n")
    capsys.readouterr()
    assert script.main([*arguments, "--check"]) == 1
    assert "not that of the code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"errors.py": "def f():\n    import house.studio\n"}, "cli, data, errors, studio, types"),
        ({"data/read.py": "from house.data.write import w\n"}, "data.read, data.write"),
    ],
)
def test_circles_are_refused(script, arguments, capsys, added, said):
    house = Path(arguments[-1])
    (house / "data" / "write.py").write_text("def w():\n    from house.data.read import read\n")
    # A package that takes names of its own modules makes no circle by itself.
    (house / "data" / "__init__.py").write_text("from house.data.read import read\n")
    assert script.main(arguments) == 0
    for file, line in added.items():
        (house / file).write_text((house / file).read_text() + line)
    capsys.readouterr()
    assert script.main([*arguments, "--check"]) == 1
    assert f"make_map: {said} import each other in a circle" in capsys.readouterr().out


def test_a_page_without_marks_is_refused(script, house):
    with pytest.raises(ValueError, match="not both there"):
        script.renewed("# no marks\n", script.modules(house))
