"""A corpus made by Ray tasks has the bytes that one process makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.data.corpus import spec
from modelwright.data.corpus.build import build
from modelwright.data.corpus.cluster import cannot_start
from tests.data_stage.corpora import MODULES, finish, make_sources, start, tree


def test_ray_leaves_the_same_bytes(tmp_path: Path):
    ray = pytest.importorskip("ray")
    if why := cannot_start(Path(ray.__file__).parent):
        pytest.skip(why)
    path = make_sources(tmp_path, MODULES[2:3])
    build(spec.read(path), tmp_path / "corpus", say=lambda line: None)
    options = ["--engine", "ray", "--workers", 2]
    code, _, wrong = finish(start("run", path, "--out", tmp_path / "by-ray", *options))
    assert code == 0, wrong
    assert tree(tmp_path / "by-ray") == tree(tmp_path / "corpus")


def test_a_path_with_spaces_is_refused_rather_than_waited_for():
    assert cannot_start(Path("/opt/my tools/ray")) == (
        "Ray starts no workers from a path with spaces (/opt/my tools/ray)"
    )
    assert cannot_start(Path("/opt/ray")) == ""
