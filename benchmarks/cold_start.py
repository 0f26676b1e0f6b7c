"""How long a command takes before it does anything, beside ``import torch`` alone.

``make bench NAME=cold_start``: a new process each time, after one that warms the disk's cache;
medians of alternating turns (``benchmarks.run.alternate``). Bars are seconds on the machine that
measures; the ratio to ``import torch``, which every one of these did before, depends on it less.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import modelwright
from benchmarks.run import Row, alternate

SOURCE = Path(modelwright.__file__).parents[1]
REPEATS = 9
TORCH = ("-c", "import torch")
COMMAND, IMPORT = 0.4, 0.6  # seconds
STARTS: dict[str, tuple[Sequence[str], float, int]] = {  # name -> arguments, bar, exit code
    "import modelwright": (("-c", "import modelwright"), IMPORT, 0),
    "modelwright --help": (("-m", "modelwright", "--help"), COMMAND, 0),
    "modelwright version": (("-m", "modelwright", "version"), COMMAND, 0),
    "modelwright data --help": (("-m", "modelwright", "data", "--help"), COMMAND, 0),
    "an unknown command": (("-m", "modelwright", "trian"), COMMAND, 2),
    "a recipe that does not exist": (("-m", "modelwright", "run", "quikstart"), COMMAND, 2),
    "a run that does not exist": (("-m", "modelwright", "ask", "runs/nope", "?"), COMMAND, 2),
}


def seconds(arguments: Sequence[str], folder: str, code: int = 0) -> float:
    """The wall time of one process in an empty folder, which must end with ``code``."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - began
    assert done.returncode == code, done.stderr
    return taken


def questions(quick: bool) -> list[Row]:
    """A row for every kind of start."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        seconds(TORCH, folder)
        for name, (arguments, bar, code) in STARTS.items():
            seconds(arguments, folder, code)
            ours, peer = alternate(
                lambda a=arguments, c=code: seconds(a, folder, c),
                lambda: seconds(TORCH, folder),
                5 if quick else REPEATS,
            )
            rows.append(
                Row(
                    f"{name}, s, against `import torch`",
                    round(ours, 3),
                    round(peer, 3),
                    ours / peer,
                    f"< {bar} s",
                    ours < bar,
                )
            )
    return rows
