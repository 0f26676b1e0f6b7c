"""The method of airbench94 (arXiv:2404.00498) on a CPU, written anew from its description.

What the paper names is here: a frozen whitening convolution of 2x2 patches, three groups of two
convolutions begun as the identity, norms without gains whose biases learn 64 times as fast, SGD
with Nesterov momentum whose settings are given apart from each other, a triangular rate, label
smoothing 0.2, views that are mirrored in every other epoch and moved by two pixels, and Lookahead
whose weight grows with time. On a GPU it takes 9.9 epochs to 94 %; how many it takes to 90 % is
its ``--epochs``.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.training.clock import Clock, emit
from benchmarks.vision import pictures

BATCH, RATE, MOMENTUM, DECAY = 1024, 11.5, 0.85, 0.0153
BIAS_TIMES, SMOOTHING, BIAS_EPOCHS = 64.0, 0.2, 3
WIDTHS, SCALE, SHIFT = (64, 256, 256), 1 / 9, 2
TARGET = 0.90


class Group(nn.Module):
    """gelu(norm(pool(conv x))), then gelu(norm(conv y))."""

    def __init__(self, read: int, made: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(read, made, 3, padding="same", bias=False)
        self.two = nn.Conv2d(made, made, 3, padding="same", bias=False)
        self.one_norm, self.two_norm = (
            nn.BatchNorm2d(made, eps=1e-12, momentum=0.4) for _ in range(2)
        )
        for conv in (self.one, self.two):
            nn.init.dirac_(conv.weight.data[: conv.weight.shape[1]])
        for norm in (self.one_norm, self.two_norm):
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Planes (B, read, H, W) to (B, made, H / 2, W / 2)."""
        x = F.gelu(self.one_norm(F.max_pool2d(self.one(x), 2)))
        return F.gelu(self.two_norm(self.two(x)))


class Network(nn.Module):
    """Planes (B, 3, 32, 32) to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        sides = (24, *WIDTHS)
        self.groups = nn.Sequential(*(Group(a, b) for a, b in zip(sides, WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], pictures.CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of scaled pictures."""
        planes = self.groups(F.gelu(self.whiten(x)))
        logits: Tensor = self.head(F.max_pool2d(planes, 3).flatten(1)) * SCALE
        return logits

    def whitened(self, x: Tensor) -> None:
        """Set the first filters: eigenvectors of 2x2 patches over their deviations, and minus."""
        patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        rows = (vectors / torch.sqrt(values + 5e-4)).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.data.copy_(torch.cat((rows, -rows)))


def views(x: Tensor, mirrored: bool) -> Tensor:
    """Every picture moved by up to ``SHIFT`` pixels, all of them mirrored or none."""
    count = len(x)
    padded = F.pad(x, (SHIFT,) * 4, "reflect")
    moved = torch.empty_like(x)
    shifts = torch.randint(0, 2 * SHIFT + 1, (count, 2))
    for top in range(2 * SHIFT + 1):
        for left in range(2 * SHIFT + 1):
            chosen = (shifts[:, 0] == top) & (shifts[:, 1] == left)
            moved[chosen] = padded[chosen, :, top : top + 32, left : left + 32]
    return moved.flip(3) if mirrored else moved


def batches(x: Tensor, y: Tensor, epochs: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epoch, pictures, labels) of every step; which pictures begin mirrored is drawn once."""
    first = torch.rand(len(x)) < 0.5
    x = torch.where(first[:, None, None, None], x.flip(3), x)
    for epoch in range(epochs):
        seen = views(x, epoch % 2 == 1).contiguous(memory_format=torch.channels_last)
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield epoch, seen[rows], y[rows]


def train(model: Network, x: Tensor, y: Tensor, epochs: float, narrow: Any) -> None:
    """The loop."""
    thousand = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = RATE / thousand, DECAY * BATCH / thousand
    biases = [p for n, p in model.named_parameters() if "norm" in n and p.requires_grad]
    others = [p for n, p in model.named_parameters() if "norm" not in n and p.requires_grad]
    fast = rate * BIAS_TIMES
    groups: list[Any] = [
        {"params": biases, "lr": fast, "weight_decay": decay / fast},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
    total = math.ceil(epochs * (len(x) // BATCH))
    rising = int(0.23 * total)

    def course(step: int) -> float:
        if step < rising:
            return 0.2 + 0.8 * step / max(1, rising)
        return 1 - 0.93 * (step - rising) / max(1, total - rising)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, course)
    slow = {k: v.clone() for k, v in model.state_dict().items()}

    def look_ahead(kept: float) -> None:
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                slow[name].lerp_(value, 1 - kept)
                value.copy_(slow[name])

    for step, (epoch, seen, label) in enumerate(batches(x, y, math.ceil(epochs))):
        if step >= total:
            break
        model.whiten.bias.requires_grad_(epoch < BIAS_EPOCHS)  # type: ignore[union-attr]
        with narrow:
            logits = model(seen)
        cost = F.cross_entropy(logits.float(), label, label_smoothing=SMOOTHING, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        cost.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 5 == 0:
            look_ahead(0.95**5 * ((step + 1) / total) ** 3)
    look_ahead(1.0)


def main() -> None:
    """Train to the end, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    clock, found = Clock(), pictures.cifar10(arguments.count)
    torch.manual_seed(arguments.seed)
    mean, deviation = (torch.tensor(v) * 255 for v in (pictures.MEAN, pictures.DEVIATION))
    x = ((torch.from_numpy(found.x).float() - mean) / deviation).permute(0, 3, 1, 2)
    model = Network()
    model.whitened(x[:5000])
    model.to(memory_format=torch.channels_last)
    half = arguments.precision == "bfloat16"
    narrow = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    began = clock.now()
    train(model, x, torch.from_numpy(found.y), arguments.epochs, narrow)
    wall = clock.now()
    model.eval()
    with torch.no_grad(), narrow:
        right = pictures.accuracy(lambda p: model(p.permute(0, 3, 1, 2)), found, mirrored=True)
    emit(
        wall_seconds=wall,
        accuracy=right,
        epochs=arguments.epochs,
        reached=right >= TARGET,
        start_up_seconds=began,
    )


if __name__ == "__main__":
    main()
