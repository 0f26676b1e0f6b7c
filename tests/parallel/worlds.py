"""Small trainings on several processes: ``python -m tests.parallel.worlds PROCESSES ORDERS``.

The processes are forks of one that has imported everything, with the environment that torchrun
gives (jobs.py starts whole commands under torchrun itself). The first one prints the loss of
every step of every training, in full.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # before the fork: the first optimiser imports it
from torch.distributed import PrefixStore, TCPStore

from modelwright.training.parallel import SERIAL, World
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


def losses(processes: int, *orders: dict[str, Any]) -> list[list[float]]:
    """The losses of some trainings on so many processes, one training after the other.

    One process is this very one; more are started once for all orders.
    """
    if processes == 1:
        return [trained(SERIAL, order) for order in orders]
    line = [sys.executable, "-m", "tests.parallel.worlds", str(processes), json.dumps(orders)]
    done = subprocess.run(
        line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def trained(world: World, order: dict[str, Any]) -> list[float]:
    """Train as ordered: a ``Setting``, and how the processes hold the model."""
    setting = Setting(**order["setting"])
    trainer = setting.trainer(world=world, shard=order.get("shard", "none"))
    trainer.model.train()
    return [trainer.step(step).loss for step in range(setting.steps)]


def work(orders: list[dict[str, Any]]) -> None:
    """One of the processes that ``main`` starts; the first one prints."""
    torch.set_num_threads(1)
    found = []
    for number, order in enumerate(orders):
        size = int(os.environ["WORLD_SIZE"])
        os.environ["LOCAL_WORLD_SIZE"] = str(size // order.get("machines", 1))
        world = World.join()
        assert world.store is not None
        world.store = PrefixStore(f"order-{number}", world.store)  # a name is said once in each
        cuts = {name: order.get(name, 1) for name in ("tensor", "context")}
        world.connect(shard=order.get("shard", "none"), timeout=180, **cuts)
        found.append(trained(world, order))
        world.close()
    if os.environ["RANK"] == "0":
        print(json.dumps(found), flush=True)


def main(processes: int, orders: list[dict[str, Any]]) -> int:
    """Start so many processes and wait for them; 0 when all of them have come to their end."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    os.environ |= {"WORLD_SIZE": str(processes), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    running = set()
    for rank in range(processes):
        if pid := os.fork():
            running.add(pid)
            continue
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        try:
            work(orders)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    failed = 0
    while running:
        pid, status = os.wait()
        running.remove(pid)
        failed |= status
        if status:
            for other in running:
                os.kill(other, signal.SIGKILL)
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))
