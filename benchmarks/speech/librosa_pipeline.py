"""The peer: ``python -m benchmarks.speech.librosa_pipeline features|training [--steps N]``.

A data set that reads a file, changes its speed by resampling and makes its frames by librosa, a
loader that pads, a Conformer of PyTorch's modules, and a loop: nothing of ours but the clock.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.speech import shapes
from benchmarks.training.clock import Clock

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
Item = tuple[Tensor, Tensor]


class Recordings(Dataset[Item]):
    """Scaled, masked log-mel frames (T, bands) and letters of each file."""

    def __init__(self, files: list[tuple[Path, str]]) -> None:
        self.files = files
        self.numbers = {c: i + 1 for i, c in enumerate(ALPHABET)}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        """Read, resample, transform and mask one file."""
        import librosa  # noqa: PLC0415 - a library of this peer's own

        path, text = self.files[index]
        samples, _ = librosa.load(path, sr=shapes.RATE)
        factor = random.uniform(shapes.SLOWEST, shapes.FASTEST)
        samples = librosa.resample(samples, orig_sr=shapes.RATE, target_sr=shapes.RATE / factor)
        power = librosa.feature.melspectrogram(
            y=samples,
            sr=shapes.RATE,
            n_fft=shapes.TRANSFORM,
            win_length=shapes.WINDOW,
            hop_length=shapes.HOP,
            n_mels=shapes.BANDS,
        )
        frames = torch.from_numpy(np.log(power.T + 1e-6).astype(np.float32))
        frames = (frames - frames.mean(0)) / (frames.std(0) + 1e-5)
        letters = [self.numbers[c] for c in text.lower() if c in self.numbers]
        return masked(frames), torch.tensor(letters)


def masked(frames: Tensor) -> Tensor:
    """SpecAugment: bands and spans set to the mean, which is 0."""
    for masks, share, axis in (
        (shapes.FREQUENCY_MASKS, shapes.FREQUENCY, 1),
        (shapes.TIME_MASKS, shapes.TIME, 0),
    ):
        size = frames.shape[axis]
        for _ in range(masks):
            length = random.randint(0, int(share * size))
            start = random.randint(0, size - length)
            frames.narrow(axis, start, length).zero_()
    return frames


def padded(items: list[Item]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames (B, T, bands) and their numbers, letters (B, L) and theirs."""
    frames, letters = zip(*items, strict=True)
    lengths = torch.tensor([len(f) for f in frames])
    counts = torch.tensor([len(x) for x in letters])
    pad = nn.utils.rnn.pad_sequence
    return pad(list(frames), True), lengths, pad(list(letters), True), counts


class Block(nn.Module):
    """Half a feed-forward step, attention, a convolution, half a step, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        w, p = shapes.WIDTH, shapes.DROPOUT

        def step() -> nn.Sequential:
            up, down = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)
            return nn.Sequential(nn.LayerNorm(w), up, nn.SiLU(), nn.Dropout(p), down, nn.Dropout(p))

        self.first, self.second = step(), step()
        self.before, self.after = nn.LayerNorm(w), nn.LayerNorm(w)
        self.attention = nn.MultiheadAttention(w, shapes.HEADS, dropout=p, batch_first=True)
        self.gate_norm, self.gate = nn.LayerNorm(w), nn.Linear(w, 2 * w)
        self.depthwise = nn.Conv1d(w, w, shapes.KERNEL, padding=shapes.KERNEL // 2, groups=w)
        self.norm, self.down, self.dropout = nn.BatchNorm1d(w), nn.Linear(w, w), nn.Dropout(p)

    def forward(self, x: Tensor, beyond: Tensor) -> Tensor:
        """Map x (B, T, width); ``beyond`` (B, T) are the frames that there are not."""
        x = x + 0.5 * self.first(x)
        y = self.before(x)
        mixed, _ = self.attention(y, y, y, key_padding_mask=beyond, need_weights=False)
        x = x + self.dropout(mixed)
        y = F.glu(self.gate(self.gate_norm(x)), dim=-1).masked_fill(beyond[..., None], 0.0)
        y = F.silu(self.norm(self.depthwise(y.transpose(1, 2)))).transpose(1, 2)
        x = x + self.dropout(self.down(y))
        found: Tensor = self.after(x + 0.5 * self.second(x))
        return found


class Recogniser(nn.Module):
    """A Conformer of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        w = shapes.WIDTH
        first = nn.Conv1d(shapes.BANDS, w, 3, stride=2, padding=1)
        self.reading = nn.Sequential(
            first, nn.SiLU(), nn.Conv1d(w, w, 3, stride=2, padding=1), nn.SiLU()
        )
        self.blocks = nn.ModuleList(Block() for _ in range(shapes.DEPTH))
        self.output = nn.Linear(w, len(ALPHABET) + 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, T / 4, letters), and how many frames are true."""
        x = self.reading(frames.transpose(1, 2)).transpose(1, 2)
        left = ((lengths + 1) // 2 + 1) // 2
        beyond = torch.arange(x.shape[1]) >= left[:, None]
        for block in self.blocks:
            x = block(x, beyond)
        return self.output(x).log_softmax(-1), left


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("features", "training"))
    parser.add_argument("--steps", type=int, default=shapes.STEPS)
    options = parser.parse_args()
    clock = Clock()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    torch.manual_seed(1)
    random.seed(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Recordings(shapes.unpacked(Path(folder)))
        many: dict[str, Any] = {"batch_size": shapes.BATCH, "collate_fn": padded}
        # On one core a second process only takes turns with the first.
        loader = DataLoader(data, shuffle=True, drop_last=True, num_workers=cores > 1, **many)
        if options.what == "features":
            clock.stamp()
            for _, _batch in zip(range(1 + shapes.FEATURED // shapes.BATCH), loader, strict=False):
                clock.stamp()
            clock.report(1, shapes.BATCH)
            return
        train(loader, clock, shapes.WARMUP + options.steps)


def train(loader: Any, clock: Clock, steps: int) -> None:
    """A plain loop of so many steps."""
    model = Recogniser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=shapes.LEARNING_RATE)
    clock.stamp()
    done = 0
    while done < steps:
        for frames, lengths, letters, counts in loader:
            scores, left = model(frames, lengths)
            loss = F.ctc_loss(scores.transpose(0, 1), letters, left, counts, zero_infinity=True)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), shapes.CLIP)
            optimizer.step()
            clock.stamp(loss.item())
            done += 1
            if done == steps:
                break
    weights = sum(p.numel() for p in model.parameters())
    clock.report(shapes.WARMUP, shapes.BATCH, parameters=weights)


if __name__ == "__main__":
    main()
