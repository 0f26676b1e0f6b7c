"""The only training loop: from the examples of a step to the parameters of the next.

What it promises (docs/architecture.md, the laws): the examples, the random numbers and the
rate of step s depend on (seed, s) alone, so a run that was killed and resumed from a
checkpoint is bit for bit the run that was not; the loss of a step is a sum over all its
micro-batches divided by the count of all of them, so accumulation changes nothing.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import nn

from modelwright import runtime
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.training.examples import Examples
from modelwright.training.optimizers import Optimizers
from modelwright.training.schedules import SCHEDULES
from modelwright.types import Batch, Objective


@dataclass
class Trainer:
    """Everything one training needs; ``run`` is the loop.

    ``precision`` is the compute precision (parameters stay float32); ``clip`` is the largest
    gradient norm (0: no clipping); ``warmup`` and ``decay`` are shares of ``steps``.
    """

    model: nn.Module
    objective: Objective
    examples: Examples
    optimizers: Optimizers
    steps: int
    seed: int
    schedule: str = "constant"
    warmup: float = 0.0
    decay: float = 0.0
    clip: float = 1.0
    precision: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def run(self, first: int, observer: Observer) -> None:
        """Train steps ``first`` .. ``steps`` - 1, telling the observer after each.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, after the step in progress was finished and saved.
            ModelwrightError: when the loss is not finite; the parameters are those before it.
        """
        self.model.to(self.device).train()
        with _stop_requests() as stop:
            step = first
            while step < self.steps:  # not a range: a timed stage may be re-planned on its way
                started = time.perf_counter()
                record = self.step(step)
                record.seconds = time.perf_counter() - started
                last = step + 1 == self.steps
                observer.after_step(record, last=last)
                if stop() and not last:
                    observer.save(step + 1)
                    raise Interrupted(f"stopped after step {step + 1} of {self.steps}, saved")
                step += 1

    def step(self, step: int) -> Record:
        """One update: forward and backward over all micro-batches, clip, step."""
        torch.manual_seed(runtime.derived_seed(self.seed, "step", step))  # dropout and the like
        generator = torch.Generator().manual_seed(runtime.derived_seed(self.seed, "collate", step))
        batches = [self.objective.collate(c, generator) for c in self.examples(step)]
        rate = SCHEDULES[self.schedule](step, self.steps, self.warmup, self.decay)
        self.optimizers.set_rate(rate)
        count = sum(b.count for b in batches)
        if count == 0:
            raise ModelwrightError(
                f"step {step + 1}: the batch has nothing to learn; check the task's `learn` turns"
            )
        loss = sum(self.backward(batch, count) for batch in batches)
        norm = self.clipped_norm()
        if not math.isfinite(loss + norm):
            raise ModelwrightError(
                f"step {step + 1}: the loss is {loss} and its gradient's norm {norm}; nothing was "
                "updated. Lower the learning rate, or look at the data of this step"
            )
        self.optimizers.step()
        return Record(
            step=step + 1,
            loss=loss,
            items=count,
            bytes=sum(b.bytes for b in batches),
            computed=sum(b.computed or b.count for b in batches),
            rate=rate * self.optimizers.groups[-1]["base_lr"],
            gradient_norm=norm,
        )

    def backward(self, batch: Batch, count: int) -> float:
        """Add the gradient of one micro-batch's share of the step's mean loss; return it."""
        with compute(self.precision, self.device):
            loss = self.objective.loss(self.model, batch.to(self.device)) / count
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def clipped_norm(self) -> float:
        """The gradient's norm before clipping it to ``clip``."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        limit = self.clip or math.inf
        return float(nn.utils.clip_grad_norm_(parameters, limit, foreach=True))


@dataclass
class Record:
    """What one step did: ``loss`` is the mean over ``items``, in nats where it is a likelihood."""

    step: int
    loss: float
    items: int
    bytes: int
    computed: int
    rate: float
    gradient_norm: float
    seconds: float = 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Loss in bits per byte of text, or None where the targets are not text."""
        return self.loss * self.items / self.bytes / math.log(2) if self.bytes else None


class Observer:
    """Told after every step; saves when asked. The pipeline gives the real one."""

    def after_step(self, record: Record, *, last: bool) -> None:
        """Log, validate, sample and save, as due."""

    def save(self, step: int) -> None:
        """Write a checkpoint that continues at ``step``."""


@contextmanager
def compute(precision: torch.dtype, device: torch.device) -> Iterator[None]:
    """Matrix products in ``precision``; parameters and sums stay float32."""
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a question asked between steps; a second one kills."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread only
        return

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        asked.append(number)
        for s in previous:
            signal.signal(s, signal.SIG_DFL)

    previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
