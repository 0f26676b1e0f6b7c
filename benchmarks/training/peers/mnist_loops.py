"""The perceptron of MNIST in bare torch: the data resident as tensors, or through a DataLoader."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.training import data
from benchmarks.training.clock import Clock
from benchmarks.training.shapes import MNIST_BATCH, MNIST_MOMENTUM, MNIST_RATE, MNIST_WIDTHS

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
TRIED = 400  # steps with each number of threads


def main() -> None:
    """Measure one of the loops."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("resident", "loader"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    clock, images = Clock(), data.mnist()
    x, y = (torch.from_numpy(images[f"{k}_train"].copy()) for k in "xy")
    values = x.flatten(1).float()
    mean, deviation = values.mean(), values.std()
    made = {"resident": resident, "loader": loader}[arguments.what]
    batches = made(x, y.long(), mean, deviation)
    torch.set_num_threads(best_threads(batches) if arguments.what == "resident" else 1)
    model, optimizer = fresh()
    clock.stamp()
    train(model, optimizer, batches, arguments.epochs, clock)
    test = (torch.from_numpy(images["x_test"].copy()).flatten(1).float() - mean) / deviation
    with torch.no_grad():
        right = model(test).argmax(1) == torch.from_numpy(images["y_test"].copy())
    per_epoch = len(y) // MNIST_BATCH
    clock.report(1, per_epoch * MNIST_BATCH, accuracy=float(right.float().mean()))


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and its fused optimiser."""
    layers: list[nn.Module] = []
    for n, m in pairwise(MNIST_WIDTHS):
        layers += [nn.Linear(n, m), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    sgd = torch.optim.SGD(model.parameters(), lr=MNIST_RATE, momentum=MNIST_MOMENTUM, fused=True)
    return model, sgd


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    epochs: int,
    clock: Clock | None,
) -> None:
    """The loop; stamps every epoch."""
    for _ in range(epochs):
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if clock:
            clock.stamp(float(loss.detach()))


def resident(x: Tensor, y: Tensor, mean: Tensor, deviation: Tensor) -> Batches:
    """All images as one tensor of floats, and a permutation an epoch."""
    rows = (x.flatten(1).float() - mean) / deviation

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(y))
        for part in order[: len(y) // MNIST_BATCH * MNIST_BATCH].split(MNIST_BATCH):
            yield rows[part], y[part]

    return batches


class Transformed(Dataset[tuple[Tensor, int]]):
    """Every image made into floats and scaled when it is asked for, as image folders do."""

    def __init__(self, x: Tensor, y: Tensor, mean: Tensor, deviation: Tensor) -> None:
        self.x, self.y, self.mean, self.deviation = x, y.tolist(), mean, deviation

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (self.x[index].flatten().float() - self.mean) / self.deviation, self.y[index]


def loader(x: Tensor, y: Tensor, mean: Tensor, deviation: Tensor) -> Batches:
    """A DataLoader with a transform a sample, in this process: workers cost more than they do."""
    found = DataLoader(
        Transformed(x, y, mean, deviation), batch_size=MNIST_BATCH, shuffle=True, drop_last=True
    )
    return lambda: iter(found)


def best_threads(batches: Batches) -> int:
    """The number of threads that takes ``TRIED`` steps in the least time."""
    taken = {}
    most = torch.get_num_threads()  # what the machine, or OMP_NUM_THREADS, allows
    for threads in sorted({1, 2, most} & set(range(1, most + 1))):
        torch.set_num_threads(threads)
        model, optimizer = fresh()
        drawn = [batch for batch, _ in zip(batches(), range(TRIED), strict=False)]
        start = time.perf_counter()
        train(model, optimizer, lambda drawn=drawn: iter(drawn), 1, None)
        taken[threads] = time.perf_counter() - start
    return min(taken, key=taken.__getitem__)


if __name__ == "__main__":
    main()
