"""The only training loop: from the examples of a step to the parameters of the next.

What it promises (docs/architecture.md, the laws): the examples, the random numbers and the
rate of step s depend on (seed, s) alone, so a run that was killed and resumed from a
checkpoint is bit for bit the run that was not; the loss of a step is a sum over all its
micro-batches divided by the count of all of them, so accumulation changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelwright import runtime
from modelwright.errors import Interrupted, MachineError, ModelwrightError
from modelwright.kernels.build import compiler_loaded
from modelwright.training import signals
from modelwright.training.ahead import Ahead
from modelwright.training.compiled import WholeStep
from modelwright.training.examples import Examples
from modelwright.training.guard import RETURNS, SKIPS, Fault, Guard, not_finite, shown
from modelwright.training.ledger import Entry, Ledger
from modelwright.training.loss_scale import loss_scale
from modelwright.training.memory_retry import (
    halved,
    is_out_of_memory,
    pieces,
    release,
    too_much,
)
from modelwright.training.optimizers import Optimizers
from modelwright.training.parallel import SERIAL, Placed, World, is_connection_error
from modelwright.training.schedules import SCHEDULES
from modelwright.training.tuning import Freezing
from modelwright.training.watchdog import Watchdog
from modelwright.types import Batch, Objective, rows_in


@dataclass
class Trainer:
    """Everything one training needs; ``run`` is the loop.

    ``precision`` is the compute precision (parameters stay float32); ``clip`` is the largest
    gradient norm (0: no clipping); ``warmup`` and ``decay`` are shares of ``steps``. ``guard``
    judges every step, ``ledger`` keeps where the training left its plan; ``restore`` loads the
    last sound checkpoint at or before a step and returns the step it continues at. ``placed`` is
    the model as the processes of ``world`` hold it; None: all of it lies here. ``whole`` computes
    the gradients of a step that is one batch on one process. ``freezing`` says which parameters
    are trained at a step.
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
    world: World = SERIAL
    guard: Guard = field(default_factory=Guard)
    ledger: Ledger = field(default_factory=Ledger)
    restore: Callable[[int], int] | None = None
    watchdog: Watchdog = field(default_factory=Watchdog)
    placed: Placed | None = None
    whole: WholeStep | None = None
    freezing: Freezing | None = None
    at: int = field(default=0, init=False)  # the step at work, from 0

    def __post_init__(self) -> None:
        self.held = self.placed or Placed(self.model, self.objective, self.world)
        self.drawn = torch.Generator()  # what an objective draws for a batch
        self.ahead = Ahead(self.examples, self.objective)
        self.share = (0, 1.0, torch.zeros(()))  # count, scale: scale / count, as a tensor
        self.scale = 1.0  # of the loss, above 1 for float16 only

    def run(self, first: int, observer: Observer) -> None:
        """Train steps ``first`` .. ``steps`` - 1, telling the observer after each.

        Raises:
            Interrupted: on Ctrl-C, SIGTERM or SIGUSR1, after the step in progress was finished
                and saved.
            Fault: when the loss is not finite; the parameters are those before it.
            MachineError: one row does not fit into memory, or another process was lost.
        """
        with signals.deferred() as stop, self.watchdog:
            try:
                self._run(first, observer, stop)
            except RuntimeError as error:
                if self.world.alone or not is_connection_error(error):
                    raise
                raise self.world.lost(error) from error

    def _run(self, first: int, observer: Observer, stop: Callable[[], bool]) -> None:
        if not self.held.sharded:
            self.model.to(self.device)
        self.model.train()
        step = first
        while step < self.steps:  # not a range: a timed stage may be re-planned on its way
            self.watchdog.beat("step", step)
            started = time.perf_counter()
            try:
                record = self.step(step)
            except Fault as fault:
                observer.fault(fault)
                step = self.go_back(fault, observer)
                continue
            record.seconds = time.perf_counter() - started
            last = step + 1 == self.steps
            if step == first and compiler_loaded():
                # What compiling needed lies all over the heap: at 8 x 512 a tenth of the peak.
                release()
            self.watchdog.beat("observe", step)
            observer.after_step(record, last=last)
            if self.world.agree(stop()) and not last:
                observer.save(step + 1)
                said = f"stopped after step {step + 1} of {self.steps}, saved"
                raise Interrupted(said, signals.exit_code())
            step += 1

    def step(self, step: int) -> Record:
        """One update: forward and backward over all micro-batches, clip, judge, update."""
        self.at = step
        if self.precision == torch.float16:
            self.scale = loss_scale(step, self.ledger.overflows())
        if self.freezing is not None:
            self.freezing.at(step)
        rate = SCHEDULES[self.schedule](step, self.steps, self.warmup, self.decay)
        self.optimizers.set_rate(rate)
        (items, spelled, computed), values = self.gradients(step)
        *losses, norm = values.tolist()  # the only time in a step that the host waits
        losses = self.world.sum(*losses)
        loss = sum(losses)
        skipped = self.refused(step, losses, norm)
        spike = not skipped and self.spiked(step, loss, norm)
        if skipped:
            self.drop_gradients()
        else:
            self.update(step)
            self.guard.spikes.add(loss)
        return Record(
            step=step + 1,
            loss=loss,
            items=items,
            bytes=spelled,
            computed=computed,
            rate=rate * self.optimizers.groups[-1]["base_lr"],
            gradient_norm=norm,
            skipped=skipped,
            spike=spike,
        )

    # Forward and backward --------------------------------------------------------------------

    def batches(self, step: int) -> list[Batch]:
        """This process's part of a step's micro-batches, cut smaller where memory was short."""
        of_rank = (self.world.part,) if self.world.part else ()
        # For dropout and the like: processes with rows or positions of their own draw their own.
        seed = runtime.derived_seed(self.seed, "step", step, *of_rank)
        runtime.seed_torch(seed, self.device)
        planned, times = self.ledger.data_step(step), self.ledger.halvings(step)
        draws = self.objective.draws
        plain = self.whole is not None and self.world.alone and not (draws or times)
        if plain and (batch := self.ahead(planned)) is not None:
            return [batch]
        parts = self.examples(planned)
        if times:
            parts = [piece for part in parts for piece in halved(part, times)]
        shares = [self.world.share(part) for part in parts]
        drawn = runtime.derived_seed(self.seed, "collate", step) if draws else 0
        batches = []
        for columns, counts in shares:
            if draws:  # alike for every micro-batch: a cut must change nothing
                self.drawn.manual_seed(drawn)
            collated = self.objective.collate(columns, self.drawn)
            batches.append((self.held.cut(collated), counts))
        return [b if counts else replace(b, count=0, bytes=0, computed=0) for b, counts in batches]

    def gradients(self, step: int) -> tuple[list[int], Tensor]:
        """The clipped gradient of a step; its micro-batches' losses and its norm, as one tensor.

        Before them the items, bytes and computed positions of the step, over all processes; the
        losses are this process's part.

        Where memory is short the step is begun anew with smaller micro-batches.
        """
        while True:
            batches = self.batches(step)
            every = [(b.count, b.bytes, b.computed or b.count) for b in batches]
            totals = [int(n) for n in self.world.sum(*map(sum, zip(*every, strict=True)))]
            count = totals[0]
            if count == 0:
                raise ModelwrightError(
                    f"step {step + 1}: the batch has nothing to learn; check the task's `learn` "
                    "turns"
                )
            short = ""
            try:
                if self.whole is not None and len(batches) == 1:
                    values = self.whole(batches[0].to(self.device), count)
                else:
                    final = batches[-1]
                    losses = [self.backward(b, count, last=b is final) for b in batches]
                    values = torch.stack([*losses, self.clipped_norm()])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                short = str(error) or "MemoryError"
            if not self.world.agree(bool(short)):
                return totals, values
            self.halve(step, short)

    def backward(self, batch: Batch, count: int, *, last: bool = True) -> Tensor:
        """Add the gradient of one micro-batch's share of the step's mean loss; return it."""
        with compute(self.precision, self.device):
            loss = self.held.loss(batch.to(self.device), last=last).float()
        if self.share[:2] != (count, self.scale):
            share = torch.tensor(self.scale / count, device=loss.device)
            self.share = (count, self.scale, share)
        loss.backward(self.share[2])  # type: ignore[no-untyped-call]
        return loss.detach() / (count * self.world.parts)

    def clipped_norm(self) -> Tensor:
        """The gradient's norm before clipping it to ``clip``."""
        if self.scale != 1:
            for p in self.held.optimizable.parameters():
                if p.grad is not None:
                    p.grad.mul_(1 / self.scale)
        return self.held.clip(self.clip or math.inf).float()

    def update(self, step: int) -> None:
        """Let the optimisers move the parameters.

        Raises:
            Fault: memory was short in the middle: what was moved already is unknown, so the
                loop goes back to the last checkpoint and does these steps again.
        """
        short = ""
        self.held.hand_over()
        try:
            self.optimizers.step()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            short = str(error) or "MemoryError"
        if self.world.agree(bool(short)):
            self.halve(step, short)
            message = too_much(f"the optimiser's state at step {step + 1} beside", short)
            raise Fault(message, step, {"out_of_memory": short}, back=True, passing=False)

    # What goes wrong -------------------------------------------------------------------------

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that is not taken."""
        for member in self.optimizers.members:
            member.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)

    def halve(self, step: int, why: str) -> None:
        """Cut the micro-batches from this step on in two.

        Raises:
            MachineError: they have one row already.
        """
        self.drop_gradients()
        release()
        columns = self.examples(self.ledger.data_step(step))
        rows = max(rows_in(c) for c in columns)
        if self.world.agree(2 ** self.ledger.halvings(step) >= rows):
            raise MachineError(f"step {step + 1}: {too_much('one row', why)}")
        why = " ".join(why.split())[:200] or "another process"
        self.ledger.add(Entry("halve", step, why, to=self.ledger.halvings(step) + 1))

    def refused(self, step: int, losses: list[float], norm: float) -> bool:
        """Whether the step must be skipped since its loss or gradient is not finite.

        Raises:
            Fault: the policy is to stop or to go back, or too many were skipped in a row.
        """
        if not self.world.agree(not math.isfinite(sum(losses) + norm)):
            return False
        if self.scale > 1 and not self.world.agree(not math.isfinite(sum(losses))):
            why = f"a float16 gradient, with the loss times {self.scale:g}"
            self.ledger.add(Entry("overflow", step, why))
            return True
        guard = self.guard
        bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        message, facts = self.told(step, sum(losses), norm, bad)
        if name := not_finite(self.held.optimizable.named_parameters()):
            message += f"; the parameter {name} itself is not finite"
        if guard.on_nan == "skip" and self.ledger.skipped_before(step) < SKIPS:
            self.ledger.add(Entry("skip", step, message))
            return True
        self.drop_gradients()
        row = f", the {SKIPS + 1}th batch in a row" if guard.on_nan == "skip" else ""
        advice = "Lower the learning rate, or look at these rows"
        back = guard.on_nan == "rollback"
        raise Fault(f"{message}{row}; nothing was updated. {advice}", step, facts, back=back)

    def spiked(self, step: int, loss: float, norm: float) -> bool:
        """Whether the loss is far above the recent ones.

        Raises:
            Fault: the policy is to go back.
        """
        policy = self.guard.on_spike
        if policy == "off" or not self.world.agree(self.guard.spikes.found(loss)):
            return False
        if policy == "rollback":
            self.drop_gradients()
            message, facts = self.told(step, loss, norm, [])
            raise Fault(f"{message}, far above the recent losses", step, facts, back=True)
        return True

    def told(
        self, step: int, loss: float, norm: float, micro: list[int]
    ) -> tuple[str, dict[str, Any]]:
        """A step in words and as facts: its place, its loss, and the rows it came from.

        ``micro`` are the guilty micro-batches, all when empty.
        """
        planned = self.ledger.data_step(step)
        rows = [
            piece
            for part in self.examples.rows(planned)
            for piece in pieces(part, self.ledger.halvings(step))
        ]
        guilty = [rows[i] for i in micro if i < len(rows)] or rows
        epoch = planned * self.examples.per_step // self.examples.total + 1
        message = (
            f"step {step + 1} (epoch {epoch}): the loss is {loss:g} and its gradient's norm "
            f"{norm:g}, from rows {shown(guilty)} of the stage's train data"
        )
        numbers = [int(n) for part in guilty for n in part]
        return message, {"epoch": epoch, "loss": loss, "gradient_norm": norm, "rows": numbers}

    def go_back(self, fault: Fault, observer: Observer) -> int:
        """Load the last sound checkpoint; pass over the batches since then where they are at fault.

        Raises:
            Fault: the policy is to stop, there is nothing to go back to, or it was tried often.
        """
        if not fault.back or self.restore is None:
            raise fault
        to = self.restore(fault.step)
        if fault.passing:
            if self.ledger.rollbacks(to) >= RETURNS:
                raise Fault(
                    f"{fault}; went back to step {to} {RETURNS} times in vain; lower the learning "
                    "rate, or look at these rows",
                    fault.step,
                    fault.facts,
                )
            batches = fault.step + 1 - to
            self.ledger.add(Entry("rollback", fault.step, str(fault), to, batches))
        observer.went_back(fault.step, to)
        return to


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
    skipped: bool = False  # not finite: the parameters are as before
    spike: bool = False

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

    def fault(self, fault: Fault) -> None:
        """Log a step that was not taken."""

    def went_back(self, step: int, to: int) -> None:
        """Forget what was told of the steps after ``to``: they are done again."""


def compute(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in ``precision``; parameters and sums stay float32."""
    if precision == torch.float32 and not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
