"""Where the real data lies, and how many threads a test may take."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports torch; child processes inherit it. Two, because that is what CI has,
# and because bit-identity only holds at one thread count.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see modelwright/__init__.py

# Started in the background of a script, Ctrl-C is ignored here and in every process begun from
# here; the tests that send it mean it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """``data("mnist")`` is that file or folder of the shared data; absent, the test is skipped.

    The data lie in ``../shared/data`` beside the repository, or where MODELWRIGHT_DATA says.
    """
    folder = Path(os.environ.get("MODELWRIGHT_DATA") or ROOT.parent / "shared" / "data")

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            place = os.environ.get("MODELWRIGHT_DATA") or "../shared/data"
            pytest.skip(f"{place}/{name} is not there; MODELWRIGHT_DATA names another data folder")
        return path

    return find
