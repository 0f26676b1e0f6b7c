"""The learning-rate range test: a short training whose rate rises until it fails.

Source: Smith, arXiv:1506.01186, section 3.3, with the exponential sweep that became customary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from modelwright.errors import ModelwrightError
from modelwright.training.guard import Fault, Guard
from modelwright.training.optimizers import Muon, Optimizers
from modelwright.training.train import Trainer

LOWEST, HIGHEST = 1e-3, 1e3  # times the base rate
DIVERGED = 1.5  # times the first loss: further than a guess, and not coming back
BAR = 40  # columns of the printed curve
LINES = 24


@dataclass(frozen=True)
class RangeTest:
    """What the sweep saw.

    Attributes:
        rates: the rate of each step, rising by the same factor.
        losses: the loss of each step's batch before its update.
        smoothed: ``losses`` after a centred mean, which unlike a running one does not lag.
        suggestion: the rate to use, in terms of ``rates``.
        keys: the same for each rate of the recipe: Muon has two, which rise together.
        diverged: the rate at which the sweep was stopped; None when it came to its end.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float
    keys: dict[str, float]
    diverged: float | None


def range_test(
    trainer: Trainer, *, low: float = LOWEST, high: float = HIGHEST, steps: int = 120
) -> RangeTest:
    """Train with a rate that rises exponentially from ``low`` to ``high`` times the base rate.

    The steps are the trainer's own, on the examples of its first steps. It stops when the loss
    is not finite or its running mean reaches 1.5 times the first loss. Parameters, optimiser,
    average and rates are put back as they were, bit for bit, also after an error.

    The rates of all groups rise together, so for Muon both of its rates are scaled; ``rates``
    are those of the group that the loop reports.

    Raises:
        ModelwrightError: not even the lowest rate trains, so nothing can be suggested.
    """
    if steps < 8 or not 0 < low < high:
        raise ValueError("the range test needs 8 steps or more and 0 < low < high")
    base = trainer.optimizers.groups[-1]["base_lr"]
    factors = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    losses: list[float] = []
    diverged: float | None = None
    with _undisturbed(trainer):
        before = [group["base_lr"] for group in trainer.optimizers.groups]
        for step, factor in enumerate(factors):
            for group, rate in zip(trainer.optimizers.groups, before, strict=True):
                group["base_lr"] = rate * factor
            try:
                losses.append(trainer.step(step).loss)
            except Fault:
                if len(losses) < steps // 8:
                    raise
                diverged = base * factor
                break
            running = sum(losses[-5:]) / len(losses[-5:])
            if not running < DIVERGED * losses[0]:
                diverged = base * factor
                break
    rates = [base * factor for factor in factors[: len(losses)]]
    smooth = smoothed(losses, max(3, steps // 12))
    best = suggested(rates, smooth)
    keys = {key: rate * best / base for key, rate in _keys(trainer.optimizers).items()}
    return RangeTest(rates, losses, smooth, best, keys, diverged)


def _keys(optimizers: Optimizers) -> dict[str, float]:
    """The base rates by their names in a recipe."""
    return {
        "matrix_learning_rate" if isinstance(member, Muon) else "learning_rate": group["base_lr"]
        for member in optimizers.members
        for group in member.param_groups
    }


def smoothed(losses: Sequence[float], width: int) -> list[float]:
    """A centred mean over ``width`` steps, over fewer at both ends."""
    half = width // 2
    parts = (losses[max(0, i - half) : i + half + 1] for i in range(len(losses)))
    return [sum(part) / len(part) for part in parts]


def suggested(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate of the steepest descent of smoothed losses, at most a third of the minimum's.

    The slope is taken over the logarithm of the rate, up to the lowest loss: where it is
    steepest, a step gains the most. Near the minimum as much is lost as is won, so a training
    that stays at its rate must keep below it; on a flat or ragged curve the steepest place can
    lie there by chance, which is what the bound is for.

    Raises:
        ModelwrightError: the loss falls nowhere.
    """
    lowest = int(np.argmin(losses))
    if lowest < 2 or not losses[lowest] < losses[0]:
        raise ModelwrightError(
            "rates: the loss falls at no rate of the sweep; check the data, or sweep lower rates"
        )
    slope = np.gradient(np.asarray(losses[: lowest + 1]), np.log(rates[: lowest + 1]))
    return min(rates[int(np.argmin(slope))], rates[lowest] / 3)


def table(found: RangeTest, lines: int = LINES) -> str:
    """The curve as text: a line for every few rates, its smoothed loss as a bar."""
    places = np.unique(np.linspace(0, len(found.rates) - 1, lines).round().astype(int))
    low, high = min(found.smoothed), max(found.smoothed)
    nearest = min(places, key=lambda i: abs(math.log(found.rates[i]) - math.log(found.suggestion)))
    shown = [f"{'rate':>10}  {'loss':>10}"]
    for i in places:
        bar = "#" * round(BAR * (found.smoothed[i] - low) / (high - low))
        mark = "  <- use this" if i == nearest else ""
        shown.append(f"{found.rates[i]:10.3g}  {found.smoothed[i]:10.4f}  {bar}{mark}")
    if found.diverged is not None:
        shown.append(f"{found.diverged:10.3g}  diverged")
    return "\n".join(shown)


@contextmanager
def _undisturbed(trainer: Trainer) -> Iterator[None]:
    """Put model, optimiser, rates and all else back as they were; no rate but ours inside."""
    optimizers = trainer.optimizers
    model = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    state = {name: value.detach().clone() for name, value in optimizers.state().items()}
    average = (
        {n: v.clone() for n, v in optimizers.average.state().items()} if optimizers.average else {}
    )
    rates = [(group["base_lr"], group["lr"]) for group in optimizers.groups]
    settings = trainer.schedule, trainer.warmup, trainer.guard
    mode = trainer.model.training
    random = torch.random.get_rng_state()
    trainer.schedule, trainer.warmup, trainer.guard = "constant", 0.0, Guard(on_spike="off")
    trainer.model.train()
    try:
        yield
    finally:
        trainer.schedule, trainer.warmup, trainer.guard = settings
        trainer.model.train(mode)
        trainer.model.zero_grad(set_to_none=True)
        trainer.model.load_state_dict(model)
        optimizers.load_state(state)
        if optimizers.average:
            optimizers.average.load_state(average)
        for group, (base, rate) in zip(optimizers.groups, rates, strict=True):
            group["base_lr"], group["lr"] = base, rate
        torch.random.set_rng_state(random)
