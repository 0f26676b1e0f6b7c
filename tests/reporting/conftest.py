"""A finished run, fresh for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.fake_run import build_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run."""
    return build_run(tmp_path / "quickstart-1")
