"""Make pictures of noise by following a velocity (flow matching, arXiv:2210.02747).

With noise x0 ~ N(0, I), a picture x1 and a time t in 0..1, on straight lines (rectified flow,
arXiv:2209.03003):

    x_t = (1 - t) x0 + t x1,   the velocity wanted there is x1 - x0,
    loss = sum over pictures of the mean over pixels of (v(x_t, t, label) - (x1 - x0))^2.

The minimum is v(x, t) = E[x1 - x0 | x_t = x], whose flow carries noise at t = 0 to pictures at
t = 1. A share of the labels is left out, so that the same model also knows the flow without a
label, which classifier-free guidance needs (arXiv:2207.12598).

Noise and time of a row depend on the number drawn for the batch and on the row's own bytes, so
they are the same whatever else is in the batch and however a step is cut.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.types import Array, Batch, Codec, Columns

name = "flow_matching"
needs = "pictures"  # of the codec

Times = Literal["uniform", "logit_normal"]
NO_LABEL = -1
TIME_STEPS = 1000.0  # models of denoising count time in steps, from 0, a clean image


class Objective:
    """The squared error of the velocity."""

    packs = False
    draws = True

    def __init__(
        self,
        codec: Codec,
        *,
        label_dropout: float = 0.1,
        times: Times = "uniform",
    ) -> None:
        """Choose what is drawn.

        Args:
            codec: of the task.
            label_dropout: share of the rows that are shown without their label.
            times: distribution of t; "logit_normal" is 1 / (1 + exp(-n)) of n ~ N(0, 1), more
                often in the middle (arXiv:2403.03206).
        """
        if not 0 <= label_dropout <= 1:
            raise ModelwrightError(
                f"objective {name}: label_dropout {label_dropout} is not in [0, 1]"
            )
        self.codec, self.label_dropout, self.times = codec, label_dropout, times
        self.labelled = bool(codec.labels)  # type: ignore[attr-defined]

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """Inputs ``noisy`` (B, *shape), ``times`` (B,) and ``labels`` (B,); target ``velocity``.

        ``labels``, -1 where there is none or it was left out, only where the codec has some.
        """
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        tensors = self.codec.tensors(columns)
        clean, label = tensors["features"], tensors["label"].clone()
        stored, numbers = np.asarray(columns["features"]), label.numpy()
        noise, t = np.empty(clean.shape, np.float32), np.empty(len(clean), np.float32)
        for i, (pixels, number) in enumerate(zip(stored, numbers.tolist(), strict=True)):
            rng = of_row(seed, pixels, number + 1)
            if rng.random() < self.label_dropout:
                numbers[i] = NO_LABEL
            t[i] = drawn_time(rng, self.times)
            noise[i] = rng.standard_normal(clean.shape[1:], dtype=np.float32)
        start, time = torch.from_numpy(noise), torch.from_numpy(t)
        inputs = {"noisy": between(start, clean, time), "times": model_times(time)}
        if self.labelled:
            inputs["labels"] = label
        return Batch(inputs, {"velocity": clean - start}, len(clean))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The squared error of every picture's velocity, a mean over its pixels, summed."""
        found: Tensor = model(**batch.inputs)
        if found.shape != batch.targets["velocity"].shape:
            wanted = tuple(batch.targets["velocity"].shape[1:])
            raise ModelwrightError(
                f"objective flow_matching: the model predicts {tuple(found.shape[1:])} for pictures"
                f" of {wanted}; of a dit leave model.variance out"
            )
        error = found.float() - batch.targets["velocity"]
        return error.square().flatten(1).mean(dim=1).sum()

    def velocity(self, model: nn.Module, x: Tensor, t: float, labels: Tensor | None) -> Tensor:
        """The model's velocity at pictures x (B, *shape) and one time t in 0..1, float32.

        ``labels`` (B,) int64, -1 for none, are dropped where the model knows none.
        """
        times = model_times(torch.full((len(x),), t, device=x.device))
        known = {"labels": labels} if self.labelled and labels is not None else {}
        found: Tensor = model(noisy=x, times=times, **known)
        return found.float()


def of_row(seed: int, stored: Array, *more: int) -> np.random.Generator:
    """What a row draws from: the number drawn for its batch, and the row's own bytes."""
    return np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(stored).tobytes()), *more])


def drawn_time(rng: np.random.Generator, times: Times) -> float:
    """A time in 0..1, uniform or 1 / (1 + exp(-n)) of n ~ N(0, 1)."""
    if times == "uniform":
        return float(rng.random())
    return float(1 / (1 + np.exp(-rng.standard_normal())))


def between(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """(1 - t) start + t end for times t (B,)."""
    weight = t.view(-1, *[1] * (start.ndim - 1))
    return torch.lerp(start, end, weight)


def model_times(t: Tensor) -> Tensor:
    """Times 0 (noise) .. 1 (picture) as the time steps that models know: 1000 .. 0."""
    return TIME_STEPS * (1 - t)
