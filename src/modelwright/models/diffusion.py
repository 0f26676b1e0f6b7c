"""Parts that models of denoising share: what tells them the time and the label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError

SLOWEST = 10_000.0  # longest period of the waves, in time steps


def waves(times: Tensor, width: int) -> Tensor:
    """Cosines and sines of times (B,) at ``width`` / 2 frequencies 1 .. 1/10,000: (B, width)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=times.device) / half
    angles = times.float()[:, None] * torch.exp(-math.log(SLOWEST) * steps)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class Condition(nn.Module):
    """One vector of the time, and of the label where there are ``classes``.

    Row ``classes`` of the label's table stands for "no label", which classifier-free guidance
    needs (arXiv:2207.12598).
    """

    def __init__(self, width: int, classes: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies, self.classes = frequencies, classes
        self.up, self.down = nn.Linear(frequencies, width), nn.Linear(width, width)
        self.label_embedding = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, times: Tensor, labels: Tensor | None) -> Tensor:
        """(B, width) for times (B,) and labels (B,) int64; None, or -1 in a row: no label.

        Raises:
            ModelwrightError: labels are given to a model that knows none.
        """
        found: Tensor = self.down(F.silu(self.up(waves(times, self.frequencies))))
        if self.label_embedding is None:
            if labels is not None:
                raise ModelwrightError(
                    "labels: the model has none; set model.classes to their number"
                )
            return found
        none = torch.full_like(times, self.classes, dtype=torch.long)
        chosen = none if labels is None else torch.where(labels < 0, none, labels)
        labelled: Tensor = found + self.label_embedding(chosen)
        return labelled
