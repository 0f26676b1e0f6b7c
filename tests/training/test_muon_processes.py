"""Muon divided over two processes: the parameters of one process, to 1e-6."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelwright.training.optimizers import build_optimizers
from tests.parallel.worlds import environment

SHAPES = ((8, 8), (8, 8), (8, 8), (24, 8), (8, 32), (5, 7), (16, 16))

PROGRAM = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from tests.training.test_muon_processes import trained
store, out, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
found = [trained(count)[::-1] for count in json.loads(sys.argv[4])]
Path(out).write_text(json.dumps(found))
dist.destroy_process_group()
"""


class Matrices(nn.Module):
    """Matrices of equal and of unlike shapes, and a gain."""

    def __init__(self, count: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.matrices = nn.ParameterList(
            torch.randn(s, generator=generator) for s in SHAPES[:count]
        )
        self.gain = nn.Parameter(torch.ones(3))


def trained(count: int) -> tuple[list[list[float]], int]:
    """The parameters after three steps, and how many matrices were made orthogonal here."""
    model = Matrices(count)
    optimizers = build_optimizers(
        model, "muon", learning_rate=0.1, matrix_learning_rate=0.05, momentum=0.9,
        weight_decay=0.01, precision=torch.float32,
    )  # fmt: skip
    muon = optimizers.members[-1]
    plain, calls = muon.orthogonalise, 0

    def counted(stack: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(stack)
        return plain(stack)

    muon.orthogonalise = counted
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizers.step()
    return [p.detach().flatten().tolist() for p in model.parameters()], calls


def in_two_processes(folder: Path, counts: tuple[int, ...]) -> list[list[tuple[int, list[Any]]]]:
    """Of both processes, for each of the counts: the calls and the parameters."""
    command = [sys.executable, "-c", PROGRAM, str(folder / "store")]
    running = [
        subprocess.Popen(
            [*command, str(folder / f"out-{r}"), str(r), json.dumps(counts)],
            env=environment(),
        )
        for r in range(2)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    return [json.loads((folder / f"out-{r}").read_text()) for r in range(2)]


def test_two_processes_are_one(tmp_path: Path) -> None:
    counts = (len(SHAPES), 1)  # with one matrix, a process has nothing to do but take
    both = in_two_processes(tmp_path, counts)
    for count, (left_calls, left), (right_calls, right) in zip(counts, *both, strict=True):
        alone, all_calls = trained(count)
        assert left == right
        assert left_calls + right_calls == all_calls == 3 * count
        assert abs(left_calls - right_calls) <= 3  # divided, not done twice
        for a, b in zip(alone, left, strict=True):
            torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=0, atol=1e-6)
