"""T22, the short form: 1,000 steps with 50 saves leave memory, files and threads as they were."""

from __future__ import annotations

from pathlib import Path

from tests.faults.soak import soak


def test_nothing_grows(tmp_path: Path) -> None:
    memory, files, threads = soak(tmp_path, 1000, 20)
    assert memory[1] <= 1.03 * memory[0]
    assert files[1] <= files[0]
    assert threads[1] <= threads[0]
