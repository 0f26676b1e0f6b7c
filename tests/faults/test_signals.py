"""T6: a signal in any phase is noticed, nothing is lost, and the exit code says what to do next.

One signal a phase; all of them in every phase, many times over, are in tests/slow/fault_table.py.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from modelwright import checkpoint
from modelwright.errors import EXIT_INTERRUPTED, EXIT_MACHINE, EXIT_REQUEUE
from modelwright.training import signals
from tests.faults.injected import TRAIN
from tests.programs import Program, Programs, outcome, serving, the_line

CODES = {
    signal.SIGINT: EXIT_INTERRUPTED,
    signal.SIGTERM: EXIT_REQUEUE,
    signal.SIGUSR1: EXIT_REQUEUE,
}
# Phase -> the function in which the signal arrives, and at which of its calls.
Phases = dict[str, tuple[str, str, int]]
PHASES: Phases = {
    "preparing data": ("modelwright.pipeline.prepare", "write_shard", 2),
    "probing the machine": ("modelwright.runtime", "matmul_gflops", 1),
    "first step": ("modelwright.training.memory_retry", "pieces", 0),
    "step": ("modelwright.pipeline.watch", "StageObserver.after_step", 7),
    "validation": ("modelwright.pipeline.watch", "in_halves", 1),
    "sampling": ("modelwright.pipeline.watch", "StageObserver.sample", 1),
    "save": ("modelwright.checkpoint.saving", "_write_shard", 1),
    "evaluation": ("modelwright.pipeline.likelihood", "mean_loss", 1),
}


def signal_in(phase: str, number: signal.Signals, phases: Phases = PHASES) -> str:
    """Code that makes the process send itself the signal as the phase begins."""
    module, name, call = phases[phase]
    if phase == "first step":
        module, name, call = "modelwright.training.train", "Trainer.backward", 1
    *outer, last = name.split(".")
    return f"""
import importlib, os
owner = importlib.import_module({module!r})
for part in {outer!r}:
    owner = getattr(owner, part)
real, calls = getattr(owner, {last!r}), []
def struck(*a, **k):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), {int(number)})
    return real(*a, **k)
setattr(owner, {last!r}, struck)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("signals"))


RUN = ("run", "tiny.yaml", "train.steps=20", "tune.steps=5", "train.sample_every=8", "--out")


@pytest.fixture(scope="module")
def whole(programs: Programs) -> dict[str, object]:
    programs.run(*RUN, "whole")
    return outcome(programs.cwd / "whole")


@pytest.mark.parametrize(
    ("phase", "number"), [(phase, list(CODES)[i % 3]) for i, phase in enumerate(PHASES)]
)
def test_stopped_in_a_phase(
    programs: Programs, whole: dict[str, object], phase: str, number: signal.Signals
) -> None:
    out = f"{phase.replace(' ', '-')}-{number.name}"
    said = programs.run(*RUN, out, code=CODES[number], before=signal_in(phase, number))
    line = the_line(said)
    assert f"modelwright run {out}" in line
    done = {"first step": 1, "step": 7, "validation": 10, "sampling": 8, "save": 5}.get(phase)
    if done:
        assert f"train: stopped after step {done} of 20, saved" in line
        newest = checkpoint.newest(programs.cwd / out / "checkpoints" / "train")
        assert newest is not None
        assert newest.name == f"step-{done:08d}"
        assert checkpoint.verify(newest) == []
    programs.run("run", out)
    assert outcome(programs.cwd / out) == whole
    samples = [programs.cwd / o / "samples" / "train.jsonl" for o in (out, "whole")]
    assert samples[0].read_text() == samples[1].read_text()


STUCK = """
import time
from modelwright.training import train
real = train.Trainer.backward
def backward(self, *a, **k):
    if self.at == 6:
        print("stuck", flush=True)
        time.sleep(100)
    return real(self, *a, **k)
train.Trainer.backward = backward
"""


def gone(program: Program, seconds: float) -> int:
    """Its exit code; fails when it takes longer."""
    began = time.monotonic()
    code = program.wait()
    assert time.monotonic() - began < seconds
    return code


@pytest.mark.parametrize("number", CODES)
def test_a_second_signal_ends_it_at_once(programs: Programs, number: signal.Signals) -> None:
    out = f"twice-{number.name}"
    program = programs.start(*TRAIN, out, before=STUCK)
    program.until_said("stuck")
    program.signal(number)
    time.sleep(1.0)
    program.signal(number)
    assert gone(program, 20) == CODES[number]
    newest = checkpoint.newest(programs.cwd / out / "checkpoints" / "train")
    assert newest is not None
    assert checkpoint.verify(newest) == []


def test_a_signal_that_a_launcher_repeats_counts_once(programs: Programs) -> None:
    program = programs.start(*TRAIN, "echo", before=STUCK.replace("100", "1"))
    program.until_said("stuck")
    program.signal(signal.SIGINT)
    program.signal(signal.SIGTERM)
    assert program.wait() in CODES.values()
    assert "train: stopped after step 7 of 20, saved" in the_line(program.said)


def test_an_echo_inside_the_handler_of_the_first_is_no_second_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python may run the handler of one signal within that of another."""
    left: list[int] = []
    monkeypatch.setattr(signals, "_state", signals._State(deferred=1, listening=True))
    monkeypatch.setattr(signals, "leave", left.append)
    real, asked = time.monotonic, []

    def clock() -> float:
        asked.append(1)
        if len(asked) == 1:  # the first handler looks at the clock, and there the echo comes
            signals._handle(signal.SIGTERM, None)
        return real()

    monkeypatch.setattr(signals.time, "monotonic", clock)
    signals._handle(signal.SIGINT, None)
    assert len(asked) > 1
    assert signals.asked()
    assert left == []


def test_one_long_call_of_a_library_is_no_hiding_place(programs: Programs) -> None:
    """Python cannot raise inside it; it is left all the same, after a second."""
    long = """
import hashlib, importlib
prepare = importlib.import_module("modelwright.pipeline.prepare")
def write_shard(*a):
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2_000_000_000)
prepare.write_shard = write_shard
"""
    program = programs.start(*TRAIN, "long", before=long)
    program.until_said("stuck")
    program.signal(signal.SIGTERM)
    assert gone(program, 20) == EXIT_REQUEUE
    assert "stopped inside a long call" in the_line(program.said)


# -- T8: nothing moves ------------------------------------------------------------------------


def test_a_hung_step_is_ended_with_its_stacks(programs: Programs) -> None:
    program = programs.start(*TRAIN, "hung", "train.watchdog=1.5", before=STUCK)
    program.until_said("stuck")
    assert gone(program, 30) == EXIT_MACHINE
    line = the_line(program.said)
    assert "rank 0, step 7, phase step: nothing moved for" in line
    stacks = (programs.cwd / "hung" / "hung-rank-0.txt").read_text()
    assert stacks.startswith("rank 0, step 7, phase step")
    assert "in backward" in stacks
    assert "in _watch" in stacks
    programs.run("train", "hung")


def test_a_suspended_process_is_not_a_hung_one(programs: Programs, tmp_path: Path) -> None:
    program = programs.start(*TRAIN, "suspended", "train.watchdog=1.5")
    program.until_said("train: 1/")
    program.signal(signal.SIGSTOP)
    time.sleep(4)
    program.signal(signal.SIGCONT)
    assert program.wait() == 0, program.said


def test_a_stop_that_python_drops_comes_again() -> None:
    class Last:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # raised here, and what is raised in a finaliser is dropped

    last = Last()
    with pytest.raises(signals.Stopped), signals.listening():
        del last
        for _ in range(500):
            time.sleep(0.01)
