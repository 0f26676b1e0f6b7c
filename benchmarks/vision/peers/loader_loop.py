"""ResNet-18 in bare torch: a DataLoader with a transform a picture, and the usual loop.

``--fast`` is what a person adds who knows CPUs: planes channels last, and bfloat16 by autocast.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.training.clock import Clock
from benchmarks.vision import pictures
from benchmarks.vision.shapes import (
    BATCH,
    DEPTHS,
    MOMENTUM,
    RATE,
    WEIGHT_DECAY,
    WIDTHS,
)


class Block(nn.Module):
    """Two 3x3 convolutions with norms, added to what came in."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(read, made, 3, stride, 1, bias=False)
        self.one_norm = nn.BatchNorm2d(made)
        self.two = nn.Conv2d(made, made, 3, 1, 1, bias=False)
        self.two_norm = nn.BatchNorm2d(made)
        self.beside: nn.Module = nn.Identity()
        if stride > 1 or read != made:
            conv = nn.Conv2d(read, made, 1, stride, bias=False)
            self.beside = nn.Sequential(conv, nn.BatchNorm2d(made))

    def forward(self, x: Tensor) -> Tensor:
        """Planes (B, read, H, W) to (B, made, H / stride, W / stride)."""
        y = F.relu(self.one_norm(self.one(x)))
        return F.relu(self.two_norm(self.two(y)) + self.beside(x))


def resnet18() -> nn.Sequential:
    """The network for pictures of 32 x 32: a 3x3 stem, four stages, the mean of the planes."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
    ]
    read = WIDTHS[0]
    for number, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        for place in range(depth):
            layers.append(Block(read, width, 2 if number and not place else 1))
            read = width
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(read, pictures.CLASSES)]
    return nn.Sequential(*layers, *ends)


class Viewed(Dataset[tuple[Tensor, int]]):
    """A picture cropped after padding, mirrored at random, and scaled, when it is asked for."""

    def __init__(self, found: pictures.Pictures) -> None:
        self.x = torch.from_numpy(found.x).permute(0, 3, 1, 2)
        self.y = found.y.tolist()
        self.mean, self.deviation = (
            torch.tensor(v)[:, None, None] for v in (pictures.MEAN, pictures.DEVIATION)
        )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pad = pictures.PADDING
        padded = F.pad(self.x[index], (pad, pad, pad, pad))
        top, left = torch.randint(0, 2 * pad + 1, (2,)).tolist()
        view = padded[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            view = view.flip(2)
        return (view.float() / 255 - self.mean) / self.deviation, self.y[index]


def main() -> None:
    """Train, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    clock, found = Clock(), pictures.cifar10(arguments.count)
    torch.manual_seed(arguments.seed)
    layout: Any = torch.channels_last if arguments.fast else torch.contiguous_format
    model = resnet18().to(memory_format=layout)
    loader = DataLoader(
        Viewed(found),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
    )
    decays = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups: list[Any] = [{"params": decays, "weight_decay": WEIGHT_DECAY}, {"params": plain}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    steps = arguments.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    narrow = torch.autocast("cpu", torch.bfloat16) if arguments.fast else contextlib.nullcontext()
    clock.stamp()
    for _ in range(arguments.epochs):
        for x, y in loader:
            with narrow:
                loss = F.cross_entropy(model(x.to(memory_format=layout)), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            clock.stamp(float(loss.detach()))
    with clock.paused(), torch.no_grad(), narrow:
        model.eval()
        right = pictures.accuracy(lambda x: model(x.permute(0, 3, 1, 2)), found)
    clock.report(max(1, len(loader) // 4), BATCH, accuracy=right)


if __name__ == "__main__":
    main()
