from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.run import HEADINGS, Row, alternate, table
from modelwright.errors import ModelwrightError

ROOT = Path(__file__).resolve().parents[2]

FAKE = """
from benchmarks.run import Row, alternate

def questions(quick):
    ours, peer = alternate(lambda: 2.0, lambda: 4.0, repeats=1 if quick else 3)
    return [
        Row("is ours faster?", ours, peer, ours / peer, "<= 1", ours <= peer),
        Row("is it exact?", "0 wrong", "0 wrong", 1.0, "= 1", {second}),
    ]
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A repository with nothing but the runner of benchmarks, in a folder with a space."""
    house = tmp_path / "a house"
    (house / "benchmarks").mkdir(parents=True)
    for file in ("__init__.py", "__main__.py", "run.py"):
        shutil.copy(ROOT / "benchmarks" / file, house / "benchmarks")
    (house / "constraints.txt").write_text("")
    return house


def bench(house: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_benchmark_prints_its_table_and_keeps_its_result(house: Path) -> None:
    (house / "benchmarks" / "fake.py").write_text(FAKE.format(second=True))
    done = bench(house, "fake", "--quick")
    assert done.returncode == 0, done.stderr
    heading, _, first, *_ = done.stdout.splitlines()
    assert [c.strip() for c in heading.split("|")] == list(HEADINGS)
    assert [c.strip() for c in first.split("|")] == [
        "is ours faster?",
        "2",
        "4",
        "0.5",
        "<= 1",
        "yes",
    ]
    kept = json.loads((house / "benchmarks" / "results" / "fake.json").read_text())
    assert kept["command"] == "make bench NAME=fake QUICK=1"
    assert kept["holds"] is True and kept["rows"][0]["ratio"] == 0.5
    assert kept["versions"]["torch"] and kept["machine"]["cores"] >= 1
    assert kept["date"].endswith("+00:00")


def test_a_bar_that_does_not_hold_is_exit_code_1_and_still_kept(house: Path) -> None:
    package = house / "benchmarks" / "fake"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE.format(second=False))
    done = bench(house, "fake")
    assert done.returncode == 1
    assert "NO" in done.stdout and "1 of 2 bars hold" in done.stdout
    kept = json.loads((house / "benchmarks" / "results" / "fake.json").read_text())
    assert kept["holds"] is False and kept["quick"] is False


def test_peers_are_installed_under_the_constraints(house: Path) -> None:
    (house / "benchmarks" / "fake.py").write_text(FAKE.format(second=True))
    peers = house / "benchmarks" / "fake.requirements.txt"
    peers.write_text("# a peer that every environment has\npytest\n")
    done = bench(house, "fake", "--quick")
    assert done.returncode == 0, done.stderr
    kept = json.loads((house / "benchmarks" / "results" / "fake.json").read_text())
    assert kept["versions"]["pytest"] == pytest.__version__

    (house / "constraints.txt").write_text("pytest==0.0.1\n")
    peers.write_text(f"pytest=={pytest.__version__}\n")
    done = bench(house, "fake", "--quick")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("bench: pip could not install fake.requirements")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fakr", "(did you mean 'fake'?)"),
        ("", "there is no benchmark ''"),
        ("run", "there is no benchmark 'run'"),
        ("../fake", "there is no benchmark"),
    ],
)
def test_an_unknown_name_is_one_line_that_helps(house: Path, name: str, said: str) -> None:
    (house / "benchmarks" / "fake.py").write_text(FAKE.format(second=True))
    done = bench(house, name)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr and "one of: fake" in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [("", "has no function questions"), ("questions = lambda quick: []", "asked no question")],
)
def test_a_benchmark_that_measures_nothing_does_not_pass(
    house: Path, source: str, said: str
) -> None:
    (house / "benchmarks" / "fake.py").write_text(source)
    done = bench(house, "fake")
    assert done.returncode == 2
    assert said in done.stderr and not (house / "benchmarks" / "results").exists()


def test_alternate_takes_turns_and_changes_who_goes_first() -> None:
    order: list[str] = []
    values = iter([1.0, 10.0, 20.0, 2.0, 3.0, 90.0])

    def measure(who: str) -> float:
        order.append(who)
        return next(values)

    medians = alternate(lambda: measure("ours"), lambda: measure("peer"), repeats=3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert medians == (2.0, 20.0)
    with pytest.raises(ModelwrightError, match="repeats=0"):
        alternate(lambda: 1.0, lambda: 1.0, repeats=0)


@given(
    st.lists(
        st.builds(
            Row,
            question=st.text("abc ", min_size=1).map(lambda s: f"q{s}q"),
            ours=st.floats() | st.just("3 s"),
            peer=st.floats() | st.just("4 s"),
            ratio=st.floats(-1e300, 1e300) | st.sampled_from([math.inf, -math.inf, math.nan]),
            bar=st.just("<= 1") | st.floats(),
            holds=st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_table_has_one_line_a_row_and_tells_what_holds(rows: list[Row]) -> None:
    _, _, *lines = table(rows).splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.split("|")]
        assert len(cells) == len(HEADINGS)
        assert cells[0] == row.question and cells[-1] == ("yes" if row.holds else "NO")
        shown = float(cells[3])
        assert math.isnan(row.ratio) or math.isclose(shown, row.ratio, rel_tol=1e-3)
