"""What a process says of its own memory does not depend on who started it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright import processor

HELD = 300 << 20  # bytes; many times what a bare Python takes
ASK = "from modelwright import processor; print(processor.peak_resident_bytes())"
# A large process that starts a small one, which says its own peak.
PARENT = f"""
import subprocess, sys
held = b"x" * {HELD}
from modelwright import processor
done = subprocess.run([sys.executable, "-c", {ASK!r}], capture_output=True, text=True, check=True)
print(processor.peak_resident_bytes(), done.stdout.strip())
"""


@pytest.mark.skipif(not processor.STATUS.exists(), reason="no /proc: the system has ru_maxrss only")
def test_a_small_process_does_not_say_how_large_its_parent_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT], capture_output=True, text=True, check=True
    )
    parent, child = map(int, done.stdout.split())
    assert parent > HELD
    assert 1 << 20 < child < 100 << 20


def test_the_peak_is_the_largest_and_stays() -> None:
    before = processor.peak_resident_bytes()
    held = bytearray(b"x") * (before + (64 << 20))
    most = processor.peak_resident_bytes()
    assert most > len(held)
    del held
    assert processor.peak_resident_bytes() >= most - (1 << 20)


def test_where_there_is_no_proc_the_system_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processor, "STATUS", tmp_path / "none")
    scale = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    assert processor.peak_resident_bytes() >= most > 1 << 20
