"""Make the spectrum of a text's speech of noise: flow matching over frames, and how long to speak.

With noise x0, the frames x1 of a recording and a time t, on straight lines as in
``flow_matching.py``, of every recording the mean over its frames and bands, or its characters:

    (v(x_t, t, text) - (x1 - x0))^2  +  mean_weight (μ(text) - x1)^2
                                     +  duration_weight (r - log r - 1),   r = d / d(text)

where μ is the mean spectrum that the text alone gives, d the frames of a character
(Matcha-TTS, arXiv:2309.03199, which takes d from the model's own alignment; here it is stored, and
the distance of durations is that of Itakura and Saito, whose minimum is the mean duration: squared
errors of logarithms would speak too fast).
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modelwright.objectives.flow_matching import (
    NO_LABEL,
    Times,
    between,
    drawn_time,
    model_times,
    of_row,
)
from modelwright.types import Batch, Codec, Columns, ragged_column

name = "speech_flow_matching"
needs = "log_mel"  # of the codec: frames as a vocoder reads them

Weight = Annotated[float, Field(ge=0)]


class _Spoken(Protocol):
    """What a codec of texts to be spoken offers."""

    labels: list[str]
    features: int

    def tensors(self, columns: Columns) -> dict[str, Tensor]: ...


class Objective:
    """The squared errors of velocity and mean spectrum, and the distance of durations."""

    packs = False
    draws = True

    def __init__(
        self,
        codec: Codec,
        *,
        times: Times = "uniform",
        label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1,
        mean_weight: Weight = 1.0,
        duration_weight: Weight = 0.1,
    ) -> None:
        """Choose what is drawn and what counts.

        Args:
            codec: of the task.
            times: distribution of t, as of ``flow_matching``.
            label_dropout: share of the rows that are shown without their voice, where there are
                several.
            mean_weight: of the mean spectrum's error.
            duration_weight: of the durations' distance.
        """
        self.codec = cast(_Spoken, codec)
        self.times, self.label_dropout = times, label_dropout
        self.mean_weight, self.duration_weight = mean_weight, duration_weight

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """Inputs ``letters``, ``durations``, ``frames``, ``times``, of several voices ``labels``.

        Targets: ``velocity`` and ``clean`` (B, T, bands), and ``lasting`` (B, T): the frames of
        the character that a frame belongs to, 0 beyond a row's end.
        """
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        tensors = self.codec.tensors(columns)
        clean, label, durations = tensors["frames"], tensors["label"].clone(), tensors["durations"]
        noise, time = torch.zeros_like(clean), torch.zeros(len(clean))
        lasting = torch.zeros(clean.shape[:2], dtype=torch.long)
        stored = ragged_column(columns, "samples")
        for i, each in enumerate(durations):
            rng = of_row(seed, stored[i], int(label[i]) + 1)
            if rng.random() < self.label_dropout:
                label[i] = NO_LABEL
            time[i] = drawn_time(rng, self.times)
            length = int(each.sum())
            drawn = rng.standard_normal((length, self.codec.features), dtype=np.float32)
            noise[i, :length] = torch.from_numpy(drawn)
            lasting[i, :length] = each.repeat_interleave(each)
        inputs: dict[str, Any] = {
            "letters": tensors["letters"],
            "durations": durations,
            "frames": between(noise, clean, time),
            "times": model_times(time),
        }
        if self.codec.labels:
            inputs["labels"] = label
        targets = {"velocity": clean - noise, "clean": clean, "lasting": lasting}
        return Batch(inputs, targets, len(clean))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The three errors of every recording, summed over recordings."""
        return sum(self.errors(model, batch).values(), torch.zeros(()))

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted errors ``velocity``, ``mean`` and ``duration``, each summed over rows."""
        made = model(**batch.inputs).float()
        bands = self.codec.features
        velocity, mean, paced = made.split((bands, bands, 1), dim=-1)
        lasting = batch.targets["lasting"]
        there = lasting > 0
        frames = there.sum(dim=1).clamp(min=1)
        letters = (batch.inputs["durations"] > 0).sum(dim=1).clamp(min=1)

        def over_frames(found: Tensor, meant: Tensor) -> Tensor:
            error = (found - meant).square().mean(dim=-1) * there
            return (error.sum(dim=1) / frames).sum()

        # A character has as many frames as it lasts, each with its whole error.
        last = lasting.clamp(min=1).float()
        ratio = last.log() - paced[..., 0]
        apart = (ratio.exp() - ratio - 1) / last * there
        return {
            "velocity": over_frames(velocity, batch.targets["velocity"]),
            "mean": self.mean_weight * over_frames(mean, batch.targets["clean"]),
            "duration": self.duration_weight * (apart.sum(dim=1) / letters).sum(),
        }
