"""Pictures of noise: the flow of a velocity followed in steps, with classifier-free guidance.

From x(0) ~ N(0, I) the equation dx/dt = v(x, t) is solved to t = 1 in N equal steps h = 1 / N:

    Euler:  x <- x + h v(x, t)                                            (error ~ h)
    Heun:   k1 = v(x, t),  k2 = v(x + h k1, t + h),  x <- x + h (k1 + k2) / 2   (error ~ h^2)

Guidance of weight w (arXiv:2207.12598): v = v(no label) + w (v(label) - v(no label)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.data import labels as label_sets
from modelwright.types import Array, Image, Turn

AT_ONCE = 128  # pictures drawn in one pass

Velocity = Callable[[Tensor, float], Tensor]  # x (B, ...) and a time in 0..1 to the shape of x
Seen = Callable[[int, Turn], None]
Watch = Callable[[int, Tensor], None]  # the number of a step, and what x (B, ...) would become


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: steps, "euler" or "heun", weight of guidance, seed of the noise."""

    steps: int = 10
    sampler: Literal["euler", "heun"] = "heun"
    guidance: float = 1.0
    seed: int = 0

    @property
    def evaluations(self) -> int:
        """How often the model is asked for one picture."""
        twice = 2 if self.guidance != 1 else 1
        return self.steps * (2 if self.sampler == "heun" else 1) * twice


class _Drawing(Protocol):
    """What a codec of pictures to be made offers."""

    labels: list[str]
    shape: tuple[int, ...]

    def pictures(self, features: Tensor) -> Array: ...


class _Flow(Protocol):
    """What an objective offers whose model is a velocity."""

    def velocity(self, model: nn.Module, x: Tensor, t: float, labels: Tensor | None) -> Tensor: ...


def integrate(
    velocity: Velocity,
    start: Tensor,
    steps: int,
    sampler: str = "heun",
    watch: Watch | None = None,
) -> Tensor:
    """The flow of ``velocity`` from ``start`` (B, ...) at t = 0 to t = 1, in equal steps.

    ``watch`` is told at the beginning of every step where a straight line would end.
    """
    x, h = start, 1 / steps
    for i in range(steps):
        slope = velocity(x, i / steps)
        if watch is not None:
            watch(i, x + (1 - i / steps) * slope)
        if sampler == "heun":
            slope = (slope + velocity(x + h * slope, (i + 1) / steps)) / 2
        x = x + h * slope
    return x


def guided(without: Tensor, within: Tensor, weight: float) -> Tensor:
    """The velocity that guidance of ``weight`` makes of those without and with the label."""
    return without + weight * (within - without)


class ImageMaker:
    """A policy that answers with a picture of the class that is asked for.

    The noise of a call comes from the seed alone, so the same call draws the same pictures.
    """

    def __init__(self, model: nn.Module, codec: Any, objective: Any, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.codec: _Drawing = codec
        self.objective: _Flow = objective

    @classmethod
    def of(cls, model: nn.Module, codec: Any, objective: Any, task: Any) -> ImageMaker:
        """The policy with the settings of a task, where it has some."""
        settings: Mapping[str, Any] = getattr(task, "sampling", {})
        return cls(model, codec, objective, Sampling(**settings))

    def seeded(self, seed: int) -> ImageMaker:
        """The same with another seed."""
        sampling = replace(self.sampling, seed=seed)
        return ImageMaker(self.model, self.codec, self.objective, sampling)

    def answer(
        self, given: Sequence[Sequence[Turn]], looks: int = 0, seen: Seen | None = None
    ) -> list[Turn]:
        """One picture for each question: a turn with a class, or none for any.

        Args:
            given: the questions.
            looks: how often ``seen`` is shown the unfinished picture of the only question.
            seen: takes its number, from 0, and the picture.

        Raises:
            ModelwrightError: a class that the model does not know.
        """
        numbers = [self.number(turns) for turns in given]
        steps = self.sampling.steps
        watch = None
        if looks and seen is not None:
            at = [steps * (i + 1) // (looks + 1) for i in range(looks)]
            watch = partial(self._shown, seen, at)
        return [_turn(pixels) for pixels in self.draw(numbers, watch)]

    def _shown(self, seen: Seen, at: Sequence[int], step: int, x: Tensor) -> None:
        for look in (i for i, wanted in enumerate(at) if wanted == step):
            seen(look, _turn(self.codec.pictures(x)[0]))

    def number(self, turns: Sequence[Turn]) -> int:
        """The number of the class that is asked for; -1: any."""
        names = [name for turn in turns for name in turn.labels]
        if not names or not self.codec.labels:
            return label_sets.UNKNOWN
        return label_sets.numbered(names[0], self.codec.labels)

    def draw(self, numbers: Sequence[int], watch: Watch | None = None) -> Array:
        """A picture uint8 of each class number, -1 for any: (len(numbers), *shape)."""
        generator = torch.Generator().manual_seed(self.sampling.seed)
        device = next(self.model.parameters()).device
        found = []
        with evaluating(self.model), torch.inference_mode():
            for first in range(0, len(numbers), AT_ONCE):
                part = torch.tensor(numbers[first : first + AT_ONCE], dtype=torch.long)
                start = torch.randn((len(part), *self.codec.shape), generator=generator)
                x = integrate(
                    self.velocity(part.to(device)),
                    start.to(device),
                    self.sampling.steps,
                    self.sampling.sampler,
                    watch,
                )
                found.append(self.codec.pictures(x))
        return np.concatenate(found)

    def velocity(self, labels: Tensor) -> Velocity:
        """The guided velocity for labels (B,)."""
        weight, asked = self.sampling.guidance, bool((labels >= 0).any())

        def plain(x: Tensor, t: float) -> Tensor:
            return self.objective.velocity(self.model, x, t, labels)

        def both(x: Tensor, t: float) -> Tensor:
            known = torch.cat((torch.full_like(labels, label_sets.UNKNOWN), labels))
            found = self.objective.velocity(self.model, torch.cat((x, x)), t, known)
            without, within = found.chunk(2)
            return guided(without, within, weight)

        return both if asked and weight != 1 else plain


def _turn(pixels: Array) -> Turn:
    return Turn("assistant", (Image(pixels, prepared=True),))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
