"""Small trainings on several processes: run by torchrun as ``python -m tests.parallel.worlds``.

Each prints the loss of every step, in full, from the first process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from modelwright.training.parallel import World
from tests.trainings import Setting

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """One thread, this package, the loopback interface."""
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    fixed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return os.environ | fixed | more


def torchrun(processes: int, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command line that starts a module on several processes of this machine."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*start, "--nproc-per-node", str(processes), *options, "-m", *arguments]


def losses(processes: int, order: dict[str, Any]) -> list[float]:
    """The losses of a training on so many processes."""
    line = torchrun(processes, "tests.parallel.worlds", json.dumps(order))
    if processes == 1:
        line = [sys.executable, "-m", "tests.parallel.worlds", json.dumps(order)]
    done = subprocess.run(
        line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(order: dict[str, Any]) -> None:
    """Train as ordered: a ``Setting``, and how the processes hold the model."""
    torch.set_num_threads(1)
    if machines := order.get("machines"):
        os.environ["LOCAL_WORLD_SIZE"] = str(int(os.environ.get("WORLD_SIZE", "1")) // machines)
    world = World.join()
    shard, tensor = order.get("shard", "none"), order.get("tensor", 1)
    world.connect(shard=shard, tensor=tensor, timeout=60)
    setting = Setting(**order["setting"])
    trainer = setting.trainer(world=world, shard=shard)
    trainer.model.train()
    found = [trainer.step(step).loss for step in range(setting.steps)]
    if world.is_main:
        print(json.dumps(found), flush=True)
    world.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
