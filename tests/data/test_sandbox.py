"""Programs of a model are run, and hostile ones are contained: each of them is planted here."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from modelwright.data import sandbox, system_calls
from modelwright.data.sandbox import Outcome, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are contained on Linux")
SQUARE = "def square(x):\n    return x * x"
SECONDS = 0.5


def test_a_right_program_passes_and_a_wrong_one_says_why() -> None:
    assert run(SQUARE, "assert square(3) == 9") == Outcome(True)
    assert run(SQUARE, "assert square(3) == 6, 'no'") == Outcome(False, "AssertionError: no")
    assert run("def square(x) return", "").why.startswith("SyntaxError")
    assert run(SQUARE, "assert cube(3) == 27").why.startswith("NameError")


def test_what_programs_usually_import_is_there() -> None:
    program = "import math, re, heapq, hashlib, itertools\nfrom typing import List, Optional"
    assert run(program, "assert hashlib.md5(b'a').hexdigest()[:4] == '0cc1'") == Outcome(True)


LOOPS = {
    "loops": "while True: pass",
    "loops and ignores signals": "import signal\n"
    "for s in (signal.SIGPROF, signal.SIGXCPU): signal.signal(s, signal.SIG_IGN)\n"
    "while True: pass",
    "sleeps": "import time\ntime.sleep(1000)",
    "prints gigabytes": "while True: print('x' * 1000000)",
    "waits for input": "import os\nos.read(0, 1)",
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_program_without_end_is_ended(name: str) -> None:
    assert run(LOOPS[name], "", seconds=SECONDS) == Outcome(False, "takes too much time")


REFUSED = {
    "forks": "import os\nwhile True: os.fork()",
    "forks past Python": "import ctypes\n"
    "if ctypes.CDLL(None).fork() >= 0: ended = True\n"
    "raise PermissionError",
    "starts a program": "import os\nos.execv('/bin/sh', ['sh'])",
    "starts a thread": "import _thread\n_thread.start_new_thread(print, ())",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills everything": "import os\nos.kill(-1, 9)",
    "opens a socket": "import _socket\n_socket.socket()",
    "reads a file": "open('/etc/hostname')",
    "deletes": "import os\nos.unlink(PLACE + '/kept')",
    "writes": "open(PLACE + '/evil', 'w')",
    "makes a folder": "import os\nos.mkdir(PLACE + '/evil')",
    "renames": "import os\nos.rename(PLACE + '/kept', PLACE + '/evil')",
    "links": "import os\nos.symlink('/etc', PLACE + '/evil')",
    "changes rights": "import os\nos.chmod(PLACE + '/kept', 0)",
    "lists a folder": "import os\nos.listdir(PLACE)",
    "raises its limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computing_is_refused(name: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("here")
    before = kept.stat()
    found = run(f"PLACE = {str(tmp_path)!r}\n{REFUSED[name]}", "", seconds=SECONDS)
    assert not found.passed
    assert found.why.startswith(
        ("PermissionError", "OSError", "ModuleNotFoundError", "ValueError", "RuntimeError")
    ), found
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (kept.read_text(), kept.stat().st_mode) == ("here", before.st_mode)


MEMORY = {
    "allocates 100 GB": "x = bytearray(100 << 30)",
    "allocates bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 22))",
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_has_an_end(name: str) -> None:
    found = run(MEMORY[name], "", seconds=5, megabytes=256)
    assert found == Outcome(False, "uses too much memory")


CLAIMS = {
    "leaves": "import os\nos._exit(0)",
    "raises its leave": "raise SystemExit(0)",
    "answers itself": "import os, struct\nos.write(1, struct.pack('<I', 1) + b'+')\nos._exit(0)",
    "answers gigabytes": "import os, struct\nos.write(1, struct.pack('<I', 1 << 31))\n"
    "while True: os.write(1, b'x' * 65536)",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "overflows the stack": "def f(): f()\nf()",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_to_end_is_not_to_pass(name: str) -> None:
    found = run(CLAIMS[name], "assert False", seconds=SECONDS)
    assert not found.passed
    assert found.why


def test_the_environment_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_SECRET", "hidden")
    tests = "import os\nassert 'MODELWRIGHT_SECRET' not in os.environ"
    assert run("", tests) == Outcome(True)


def test_a_program_beyond_all_measure_is_not_started() -> None:
    assert run("x" * (sandbox.SOURCE + 1), "").why.startswith("is longer than")


def test_one_program_does_not_meet_what_another_left() -> None:
    assert run("import math\nmath.pi = 3", "") == Outcome(True)
    assert run("import math", "assert math.pi > 3") == Outcome(True)


def test_no_process_is_left_behind() -> None:
    def children() -> set[str]:
        return {
            n
            for path in Path("/proc/self/task").glob("*/children")
            for n in path.read_text().split()
        }

    before = children()  # of other tests
    run("while True: pass", "", seconds=SECONDS)
    assert children() <= before


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_step_of_the_filter_leads_to_what_it_says(machine: str) -> None:
    """The filter is followed by hand for all numbers of calls."""
    whole = system_calls.program(machine)
    steps = [struct.unpack_from("HBBI", whole, i) for i in range(0, len(whole), 8)]
    column, audited = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}[machine]
    allowed = {numbers[column] for numbers in system_calls.ALLOWED.values()}

    def judged(number: int, arch: int) -> int:
        at, loaded = 0, 0
        while True:
            code, yes, no, k = steps[at]
            at += 1
            if code == 0x20:
                loaded = {0: number, 4: arch}[k]
            elif code == 0x15:
                at += yes if loaded == k else no
            else:
                return int(k)

    for number in range(600):
        wanted = 0x7FFF0000 if number in allowed else 0x00050001
        assert judged(number, audited) == wanted
    assert judged(0x40000000, audited) == 0x00050001  # the other numbers of x86-64
    assert judged(0, 0x40000003) == 0x80000000  # of 32 bits


def test_a_system_without_a_filter_runs_nothing() -> None:
    with pytest.raises(OSError, match="no filter of system calls for a processor 'riscv64'"):
        system_calls.program("riscv64")
