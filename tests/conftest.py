"""Where the real data lies, and how many threads a test may take."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No example is too slow: how busy the machine is, and with what, is not what a test asks.
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# Before anything imports torch; child processes inherit it. Two, because that is what CI has,
# and because bit-identity only holds at one thread count.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see modelwright/__init__.py

# Code that a test's recipe names is trusted in a folder of the tests, not in that of the user.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="modelwright-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

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
