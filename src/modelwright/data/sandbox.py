"""Programs that a model has written, run against tests without trusting them.

Each runs in a process of its own that is limited in time, memory and answer, and may only compute
(``sandbox_child.py``). What is not contained: a program shares its process with its tests, so one
that looks for it may change them, or claim to have passed; and it keeps a core busy for its time.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import NamedTuple

from modelwright.data import sandbox_child
from modelwright.data.child import HUNG, Child

SECONDS = 5.0  # of processor time a program may take; three times that by the clock
MEGABYTES = 512  # of memory, Python's own among them
ANSWER = 4096  # bytes that are read of a process
SOURCE = 1 << 20  # characters of a program and its tests


class Outcome(NamedTuple):
    """Whether a program has passed its tests, and if not, why, in a line."""

    passed: bool
    why: str = ""


def run(
    program: str, tests: str, *, seconds: float = SECONDS, megabytes: int = MEGABYTES
) -> Outcome:
    """Run a Python program and after it its tests, which raise where it is wrong.

    Args:
        program: source, of a model.
        tests: source that runs in the same module, such as ``assert f(2) == 4``.
        seconds: of processor time.
        megabytes: of address space.

    Raises:
        MachineError: this system cannot contain programs, so none is run.
    """
    if len(program) + len(tests) > SOURCE:
        return Outcome(False, f"is longer than {SOURCE:,} characters")
    mark = secrets.token_hex(16).encode()
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "0"}
    child = Child(
        Path(sandbox_child.__file__),
        (str(seconds), str(megabytes)),
        3 * seconds,
        environment=environment,
        largest=ANSWER,
    )
    try:
        source = f"{program}\n\n{tests}\n".encode("utf-8", "replace")
        answer, lost = child.ask(mark + b"\0" + source)
    finally:
        child.stop()
    if lost:
        why = "takes too much time" if lost == HUNG else "ended its process, or took too much"
        return Outcome(False, why)
    if answer == b"+" + mark:
        return Outcome(True)
    return Outcome(False, answer[1:].decode("utf-8", "replace") or "gave no answer")
