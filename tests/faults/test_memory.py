"""T11: where memory is short, the same step is done in smaller pieces, and goes on so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from modelwright import checkpoint
from modelwright.errors import MachineError
from modelwright.training.memory_retry import halved, in_halves, is_out_of_memory, pieces
from modelwright.types import Columns, rows_in
from tests.faults.injected import TRAIN, lines, manifest, out_of_memory
from tests.faults.test_nonfinite import kill_at
from tests.programs import Programs, environment, outcome, serving, the_line
from tests.trainings import Setting

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def whole(programs: Programs) -> Path:
    programs.run(*TRAIN, "whole")
    return programs.cwd / "whole"


def last(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.newest(run / "checkpoints" / "train")
    assert newest is not None
    return checkpoint.load(newest).tensors["model"]


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer", "evaluation"])
def test_the_same_training_in_smaller_pieces(programs: Programs, whole: Path, where: str) -> None:
    step = 9 if where == "evaluation" else 7
    programs.run(*TRAIN, where, before=out_of_memory(where, step))
    run = programs.cwd / where
    departures = manifest(run).get("departures", [])
    if where == "evaluation":
        assert departures == []
    else:
        (entry,) = departures
        assert (entry["kind"], entry["step"]) == ("halve", 7)
        assert "allocate" in entry["why"]
    for key in ("loss", "validation"):
        ours, theirs = ([line for line in lines(r) if key in line] for r in (run, whole))
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        value = [
            [line[key]["loss"] if key == "validation" else line[key] for line in found]
            for found in (ours, theirs)
        ]
        np.testing.assert_allclose(value[0], value[1], rtol=2e-5)
    for name, tensor in last(whole).items():
        torch.testing.assert_close(last(run)[name], tensor, rtol=1e-3, atol=1e-4)


def test_the_smaller_size_is_kept_when_it_is_resumed(programs: Programs) -> None:
    fault = out_of_memory("backward", 3)
    programs.run(*TRAIN, "short", before=fault)
    killed = programs.start(*TRAIN, "resumed", before=fault + kill_at(12))
    assert killed.wait() == -9, killed.said
    programs.run("train", "resumed")  # memory is not short any more: the pieces stay small
    assert outcome(programs.cwd / "resumed") == outcome(programs.cwd / "short")


def test_one_row_that_does_not_fit_is_an_error_with_bytes(programs: Programs) -> None:
    always = out_of_memory("backward", 3).replace("and not done", "")
    line = the_line(programs.run(*TRAIN, "never", code=4, before=always))
    assert "train: step 4: out of memory with one row a micro-batch" in line or (
        "step 4: out of memory with one row a micro-batch" in line
    )
    assert "tried to allocate 7 bytes" in line
    assert "bytes were in use" in line
    halves = [e["kind"] for e in manifest(programs.cwd / "never")["departures"]]
    assert halves == ["halve", "halve"]  # 4 rows, 2, 1


LIMITED = """
import os, resource, sys
from dataclasses import replace
import torch, torch._dynamo
from tests.trainings import Setting
torch.set_num_threads(1)

def second_step(megabytes):
    fields = {"hidden": [400_000]}
    trainer = replace(Setting("vector_classification"), batch=12, model_fields=fields).trainer()
    trainer.model.train()
    trainer.step(0)
    lines = open("/proc/self/status").read().splitlines()
    size = int(next(l for l in lines if l.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 2**20,) * 2)
    try:
        record = trainer.step(1)
    except Exception as error:
        return [type(error).__name__, *str(error).split()]
    return ["done", len(trainer.ledger.entries), float(record.loss).hex(), record.items]

for line in sys.stdin:
    if not (pid := os.fork()):
        print(*second_step(int(line)), flush=True)
        os._exit(0)
    if status := os.waitpid(pid, 0)[1]:
        print("died", status, flush=True)
"""


@pytest.fixture
def limited() -> Iterator[Callable[[int], list[str]]]:
    """What a step says that may take so many megabytes: each in a fork, which imports nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", LIMITED],
        cwd=ROOT,
        # What is freed goes back to the system at once: no holes in the heap to be lucky with.
        env=environment(MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="1000000"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def said(megabytes: int) -> list[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{megabytes}\n")
            process.stdin.flush()
            return process.stdout.readline().split()

        yield said


def test_a_real_limit_on_memory(limited: Callable[[int], list[str]]) -> None:
    """RLIMIT_AS in a process of its own: the kernel refuses, not the test."""
    roomy = limited(4000)
    assert roomy[:2] == ["done", "0"]
    low, high, shared = 16, 136, roomy  # what a limit leaves free differs between machines
    while high - low > 2 and (shared[0] != "done" or shared[1] == "0"):
        middle = (low + high) // 2
        shared = limited(middle)
        low, high = (low, middle) if shared[0] == "done" else (middle, high)
    assert shared[0] == "done", shared  # it was made to fit
    assert int(shared[1]) > 0
    assert shared[3] == roomy[3]
    assert float.fromhex(shared[2]) == pytest.approx(float.fromhex(roomy[2]), rel=1e-5)
    tight = limited(16)
    assert tight[0] == "MachineError", tight
    assert "bytes" in tight


@pytest.mark.parametrize("task", ["documents", "docstrings", "vector_classification"])
def test_pieces_are_the_rows(task: str) -> None:
    _, columns = Setting(task).data()
    total = rows_in(columns)
    for times in range(6):
        parts = halved(columns, times)
        assert sum(map(rows_in, parts)) == total
        assert len(parts) == min(2**times, total)
        assert [len(p) for p in pieces(np.arange(total), times)] == [*map(rows_in, parts)]


def test_halving_stops_at_what_fits_and_at_one_row() -> None:
    columns: Columns = {"x": np.arange(12)}

    def work(limit: int) -> list[list[int]]:
        def fits(part: Columns) -> list[int]:
            if rows_in(part) > limit:
                raise MemoryError("12 bytes")
            return [int(n) for n in np.asarray(part["x"])]

        return in_halves(columns, fits)

    assert work(12) == [list(range(12))]
    assert [n for part in work(2) for n in part] == list(range(12))
    with pytest.raises(MachineError, match="out of memory with one row .*12 bytes.*bytes were in"):
        work(0)


def test_other_errors_are_not_taken_for_it() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
