"""A disk that fills: one line, nothing damaged, and the run goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.data.corpus import spec
from modelwright.data.corpus.build import build
from modelwright.errors import MachineError
from tests.data_stage.corpora import MODULES, make_sources, tree

SMALL, ENOUGH = "1200k", "64m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of little room in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    options = f"size={SMALL},mode=777"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("engine", ["inline", "pool"])
def test_a_full_disk(tmp_path: Path, disk: Path, engine: str):
    path = make_sources(tmp_path / "in", MODULES)
    made = spec.read(path)
    corpus = disk / "corpus"
    with pytest.raises(MachineError, match="the disk is full; make room") as told:
        build(made, corpus, engine=engine, workers=2, say=lambda line: None)
    assert "\n" not in str(told.value)
    assert not (corpus / "tmp").exists()
    done = list((corpus / "stages" / "read").glob("*.json"))
    assert done, "the disk was too small for the test"
    stamps = {p: p.stat().st_mtime_ns for p in done}
    subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(disk)], check=True)
    build(made, corpus, engine=engine, workers=2, say=lambda line: None)
    build(made, tmp_path / "calm", say=lambda line: None)
    assert tree(corpus) == tree(tmp_path / "calm")
    assert {p: p.stat().st_mtime_ns for p in done} == stamps  # what was finished was kept
