from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""A module."""
LIMIT: int = 3
WIDTH, HEIGHT = 1, 2

class House:
    """A house."""

    rooms = 4

    def enter(self) -> None:
        """Go in."""
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "p").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "src" / "p" / "house.py").write_text(SOURCE)
    (tmp_path / "docs" / "guide one.md").write_text(
        "# The guide\n\n## First: steps\n## First: steps\n"
    )
    return tmp_path


def check(tree: Path, text: str) -> tuple[int, list[str]]:
    (tree / "README.md").write_text(text)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_docs.py", tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()[:-1]


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/guide%20one.md) ![b](src/p/house.py 'x') [c](docs/)",
        "[a](docs/guide%20one.md#first-steps) [b](docs/guide%20one.md#first-steps-1)",
        "# Über uns: `x` & [y](docs/)\n\n[a](#über-uns-x--y)",
        "[a](src/p/house.py#L1) [b](src/p/house.py#L2-L5)",
        "[a](https://example.org/nowhere) [b](mailto:a@example.org)",
        "`src/p/house.py:LIMIT` `src/p/house.py:HEIGHT` `src/p/house.py:House`",
        "`src/p/house.py:House.enter` src/p/house.py:House.rooms, src/p/house.py:3.",
        "```\n[a](nowhere.md)\n```\nand `[b](nowhere.md)`",
        "[a]: docs/\n\nsee [a]",
    ],
)
def test_what_resolves_passes(tree: Path, text: str) -> None:
    assert check(tree, text) == (0, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x\n[a](nowhere.md)", "README.md:2: link to nowhere.md: there is no nowhere.md"),
        ("```\nx\n```\n[a]: nowhere.md", "README.md:4: link to nowhere.md"),
        ("[a](docs/guide%20one.md#second)", "has no heading #second"),
        ("[a](src/p/house.py#L2-L500)", "the file has 11 lines"),
        ("`src/p/none.py:x`", "there is no src/p/none.py"),
        ("`src/p/house.py:Castle`", "src/p/house.py does not define Castle"),
        ("`src/p/house.py:House.leave`", "does not define House.leave"),
        ("`src/p/house.py:99`", "the file has 11 lines"),
        ("```\nsrc/p/house.py:Castle\n```", "README.md:2: src/p/house.py:Castle"),
    ],
)
def test_what_does_not_resolve_is_named_with_its_line(tree: Path, text: str, said: str) -> None:
    code, found = check(tree, text)
    assert code == 1
    assert len(found) == 1 and said in found[0]


def test_the_documents_of_this_repository_resolve() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_docs.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
