"""Twenty steps from the same weights, on the same batches, by the same AdamW: the same losses.

In float32. What differs is the order of sums. A quarter of the rows of the speed runs, and a
process a model, one side after the other: no more than 8 GiB and some minutes each.
``python -m benchmarks.models.losses "ViT-S" [--quick] [--steps N]`` prints those of one model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.run import Row
from modelwright.errors import MachineError

if TYPE_CHECKING:
    from benchmarks.models.contender import Batch, Loss

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
RATE = 1e-4
BAR = 1e-3  # nats
SHARE = 4  # of the rows of a batch one in so many
LONGEST = 3600.0  # seconds of one model


def rows(quick: bool) -> list[Row]:
    """The largest difference of the losses of each shape."""
    from benchmarks.models.shapes import shapes  # noqa: PLC0415

    found = []
    for name in shapes(quick):
        mine, peer = _measured(name, quick)
        gap = max(abs(a - b) for a, b in zip(mine, peer, strict=True))
        found.append(
            Row(
                f"{name}: loss after {STEPS} steps, largest difference {gap:.2g}",
                mine[-1],
                peer[-1],
                mine[-1] / peer[-1],
                f"within {BAR:g} at every step",
                gap <= BAR,
            )
        )
    return found


def _measured(name: str, quick: bool) -> tuple[list[float], list[float]]:
    """The losses of both sides, from a process of its own.

    Raises:
        MachineError: the process failed, or took too long.
    """
    command = [sys.executable, "-m", "benchmarks.models.losses", name, *(["--quick"] * quick)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"bench: {name} took more than {LONGEST:.0f} s") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise MachineError(f"bench: {name} failed ({done.returncode}): {''.join(last)}")
    last_line = done.stdout.splitlines()[-1]
    print(f"  losses {name}: {last_line}", file=sys.stderr, flush=True)
    found = json.loads(last_line)
    return found["ours"], found["theirs"]


def losses(name: str, quick: bool, steps: int = STEPS) -> tuple[list[float], list[float]]:
    """The losses of both sides over some steps.

    Raises:
        MachineError: transformers is not installed.
    """
    from benchmarks.models import contender  # noqa: PLC0415
    from benchmarks.models.shapes import shapes  # noqa: PLC0415

    full = shapes(quick)[name]
    shape = dataclasses.replace(full, rows=max(2, full.rows // SHARE))
    model, config = contender.ours(shape)
    try:
        peer = contender.theirs(shape, model, config)  # before ours learns
    except ImportError as error:
        raise MachineError("bench: transformers is missing; see requirements.txt") from error
    work = contender.batches(shape, config, 4)
    mine = _taken(model, contender.our_loss(shape, model), work, steps)
    return mine, _taken(peer, contender.their_loss(shape, peer), work, steps)


def _taken(module: object, loss: Loss, work: list[Batch], steps: int) -> list[float]:
    """The losses of ``steps`` steps; nothing of the optimiser stays."""
    import torch  # noqa: PLC0415

    parameters = list(module.parameters())  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.95))
    taken = []
    for step in range(steps):
        value = loss(work[step % len(work)])
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(value.item())
    return taken


def main() -> None:
    """Print the losses of one model, and the peak of the process's memory in bytes, as JSON."""
    from modelwright import runtime  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("shape")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    mine, peer = losses(options.shape, options.quick, options.steps)
    peak = runtime.peak_memory_bytes()
    print(json.dumps({"ours": mine, "theirs": peer, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
