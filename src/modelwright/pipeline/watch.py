"""The observer of a stage: logs every step, validates, samples and saves as due."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from modelwright import runtime
from modelwright.errors import ModelwrightError
from modelwright.pipeline.answering import Sampler
from modelwright.pipeline.patience import Patience
from modelwright.pipeline.samples import kept_at
from modelwright.runs import Run
from modelwright.training import signals
from modelwright.training.compiled import uncompiled
from modelwright.training.guard import Fault
from modelwright.training.memory_retry import in_halves
from modelwright.training.noise_scale import measured_noise_scale
from modelwright.training.observe.log import MetricLog
from modelwright.training.observe.means import Means
from modelwright.training.observe.profile import Profiler
from modelwright.training.observe.progress import Progress, Status
from modelwright.training.train import Observer, Record, Trainer, compute
from modelwright.types import Codec, Columns

# Shares of the time at which the steps are planned anew.
CHECKS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95)


# Told (stage, step, values) after every validation; what it raises ends the training.
Validated = Callable[[str, int, Mapping[str, float]], None]
_VALIDATED: ContextVar[Validated | None] = ContextVar("validated", default=None)


@contextmanager
def after_validation(tell: Validated) -> Iterator[None]:
    """Within the block, tell of every validation: so a search ends a trial without a prospect."""
    before = _VALIDATED.set(tell)
    try:
        yield
    finally:
        _VALIDATED.reset(before)


@dataclass
class StageObserver(Observer):
    """What happens beside the updates. None of it changes them (law 12)."""

    run: Run
    name: str
    first: int
    values: dict[str, Any]
    trainer: Trainer
    flops_per_item: Callable[[float, float], float]  # ModelConfig.flops_per_item
    matmul_gflops: float
    validation: Callable[[], Iterator[Columns]]
    codec: Codec
    epoch_steps: float  # steps of one pass over the data; 0: do not speak of epochs
    say: Callable[[str], None]
    allowed: float  # seconds this stage may take; 0: its steps are fixed
    replan: Callable[[int, int], None]  # (step, new number of steps)
    totals: dict[str, float]  # of the steps before ``first``
    write: Callable[[int, dict[str, float]], None]
    keep_best: Callable[[int, dict[str, float]], None]  # the model of a step, as the best so far
    end: Callable[[int], None]  # let a step be the last
    sampler: Sampler | None = None  # keeps samples of a model at a step

    @functools.cached_property
    def unit(self) -> str:
        """Of what is computed, as the objective says it."""
        plain = "tokens" if "tokens" in self.codec.ragged else "examples"
        found: str = getattr(self.trainer.objective, "unit", plain)
        return found

    def __enter__(self) -> Self:
        watch = self.run.recipe.watch
        self.log = self._log(self.first)
        self.progress = Progress(self.name, self.values["steps"], self.first)
        self.progress.__enter__()
        self.profiler = Profiler(
            self.trainer, watch.profile, self.first, self.run.path / "profile" / self.name, self.say
        )
        self.validated = ""
        self.patience = Patience(self.values.get("patience") or 0, self.log.path)
        self.started = time.perf_counter()
        zero = {"computed": 0, "items": 0, "busy_seconds": 0.0, "epoch_loss": 0.0, "epoch_items": 0}
        zero["flops"] = 0.0
        self.totals = {**zero, **self.totals}
        self.means = Means(self.values.get("log_every", 1), self.totals)
        self.cost: tuple[int, int, float] = (0, 0, 0.0)  # items, computed, FLOPs of a step
        self.saved = self.first
        self.paced = (self.started, self.first)
        self.began = self.log.offset
        self.checks = (
            [] if not self.allowed else [s for s in CHECKS if s * self.allowed > self.began]
        )
        self.trainer.world.sum(len(self.checks))  # those that follow have as many
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.profiler.close()
        self.progress.__exit__(kind, error, trace)
        self.log.close()
        self.run.stage(self.name).update(self.summary())

    def after_step(self, record: Record, *, last: bool) -> None:
        """Log the step; validate, sample and save when it is time."""
        v, step = self.values, record.step
        self.profiler.after_step(record.seconds)
        self.totals["computed"] += record.computed
        self.totals["items"] += record.items
        self.totals["busy_seconds"] += record.seconds
        self.totals["flops"] += self._flops(record)
        for told, steps in self.means.add(record, last=last):
            self._tell(told, steps)
        self._epoch(record, last=last)
        if step % v["validate_every"] == 0 or last:
            self.validate(step)
        if not last and self._exhausted():
            last = True
            self.save(step)
            self.end(step)
        if self.sampler and (step % v["sample_every"] == 0 or last) and not self._leaving(step):
            self.sample(step)
        if step % v["save_every"] == 0 or last:
            self.trainer.watchdog.beat("save", step - 1)
            self.save(step)
        if self.checks and not last:
            self._keep_to_time(step)

    def _flops(self, record: Record, steps: int = 1) -> float:
        """FLOPs of the steps that a record stands for."""
        if (record.items, record.computed) != self.cost[:2]:
            learned = record.items / record.computed
            # Of a row, on the average.
            length = record.computed / self.trainer.examples.per_step / steps
            flops = self.flops_per_item(learned, length) * record.computed
            self.cost = (record.items, record.computed, flops)
        return self.cost[2]

    def _tell(self, record: Record, steps: int) -> None:
        """A line of the log and of the progress, of one step or the mean of some."""
        step = record.step
        line: dict[str, Any] = {
            "step": step,
            "loss": record.loss,
            "learning_rate": record.rate,
            "gradient_norm": record.gradient_norm,
            "items_per_second": round(record.items / max(record.seconds, 1e-9), 1),
            "seconds": round(self.log.offset + time.perf_counter() - self.started, 3),
            "memory_bytes": runtime.peak_memory_bytes(),
        }
        bits = record.bits_per_byte
        if bits is not None:
            line["bits_per_byte"] = bits
        if steps > 1:
            line["steps"] = steps
        for mark in ("skipped", "spike"):
            if getattr(record, mark):
                line[mark] = 1
                self.say(f"{self.name}: step {step}: {mark}, its loss is {record.loss:g}")
        self.log.write(line)
        self.progress.update(
            Status(
                step=step,
                loss=record.loss,
                rate=record.computed / max(record.seconds, 1e-9),
                unit=self.unit,
                mfu=self._flops(record, steps)
                / max(record.seconds, 1e-9)
                / (self.matmul_gflops * 1e9),
                gradient_norm=record.gradient_norm,
                learning_rate=record.rate,
                memory_bytes=line["memory_bytes"],
                bits_per_byte=bits,
                validation=self.validated,
            )
        )

    def fault(self, fault: Fault) -> None:
        """Log a step that was not taken, as it was: its loss may be NaN."""
        numbers = {k: v for k, v in fault.facts.items() if isinstance(v, float)}
        self.log.write({"step": fault.step + 1, **numbers, "refused": 1})
        self.say(f"{self.name}: {fault}")

    def went_back(self, step: int, to: int) -> None:
        """Take back what was logged of the steps after ``to``; time is not taken back."""
        spent = self.log.offset + time.perf_counter() - self.started
        self.log.close()
        self.log = self._log(to)
        self.patience = Patience(self.patience.allowed, self.log.path)
        self.log.offset, self.started = spent, time.perf_counter()
        self.saved = to
        if not to:  # what a checkpoint had would have been taken back from it
            self.means.forget()
        self.log.write({"step": to, "went_back_from": step + 1})
        self.say(f"{self.name}: went back from step {step + 1} to step {to}")

    def _log(self, first: int) -> MetricLog:
        watch = self.run.recipe.watch
        return MetricLog(self.run.path, self.name, first, watch.writers, self.say)

    def _epoch(self, record: Record, *, last: bool) -> None:
        """At the end of a pass over the data, say the running loss: its mean over the pass."""
        if not self.epoch_steps:
            return
        if not record.skipped:
            self.totals["epoch_loss"] += record.loss * record.items
            self.totals["epoch_items"] += record.items
        done = int(record.step / self.epoch_steps)
        if done > int((record.step - 1) / self.epoch_steps) or last:
            loss = self.totals["epoch_loss"] / max(1, self.totals["epoch_items"])
            epochs = self.values["steps"] / self.epoch_steps
            self.say(f"{self.name}: epoch {done}/{epochs:.0f}  running loss {loss:.4f}")
            self.log.write({"step": record.step, "epoch": done, "running_loss": loss})
            self.totals.update(epoch_loss=0.0, epoch_items=0)

    def _keep_to_time(self, step: int) -> None:
        """At set shares of the time, plan as many steps as the speed of late lets it have.

        Before the rate begins to fall the steps already done are those of the new plan as well.
        Once it falls they are not; so a checkpoint stands where the plans part, and a run that is
        killed goes on from there.
        """
        steps = int(self.trainer.world.sum(self._better_steps(step))[0])
        if steps:
            self.checks.pop(0)
            self.paced = (time.perf_counter(), step)
            if self._falls(step):
                self.save(step)
            self.replan(step, steps)
            self.progress.total = self.values["steps"]

    def _falls(self, step: int) -> bool:
        """Whether the rate falls after ``step`` steps."""
        falls_at: float = (1 - self.values["decay"]) * self.values["steps"]
        return step >= falls_at

    def _better_steps(self, step: int) -> int:
        """The number of steps for the speed since the last plan; 0 when it is not yet time."""
        now = time.perf_counter()
        spent, since = now - self.started, step - self.paced[1]
        if self.began + spent < self.checks[0] * self.allowed or since < 3:
            return 0
        left = self.allowed - self.began - spent
        steps = step + int(left / ((now - self.paced[0]) / since))
        if self._falls(step):
            return max(steps, step + 1)
        earliest: int = math.ceil((step + 1) / max(1e-6, 1 - self.values["decay"]))
        return max(steps, earliest)

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``, once."""
        if step != self.saved:
            self.write(step, self.totals)
            self.saved = step

    def validate(self, step: int) -> None:
        """The mean loss on the validation part, logged with the step.

        Given up when a stop is asked for: the run that goes on begins with it (``catch_up``).
        """
        total, items, spelled = 0.0, 0, 0
        t = self.trainer
        generator = torch.Generator().manual_seed(0)

        def measured(columns: Columns) -> tuple[float, int, int]:
            share, counts = t.world.share(columns)
            batch = t.held.cut(t.objective.collate(share, generator)).to(t.device)
            loss = float(t.held.evaluated(batch))
            return (loss, batch.count, batch.bytes) if counts else (0.0, 0, 0)

        t.model.eval()
        with (
            torch.no_grad(),
            uncompiled(),
            t.optimizers.evaluation(),
            compute(t.precision, t.device),
        ):
            for columns in self.validation():
                if self._leaving(step):
                    break
                t.watchdog.beat("validation", step - 1)
                for loss, count, length in in_halves(columns, measured):
                    total, items, spelled = total + loss, items + count, spelled + length
        t.model.train()
        if self._leaving(step):
            return
        total, *counted = t.world.sum(total, items, spelled)
        items, spelled = int(counted[0]), int(counted[1])
        if not items and self.patience.allowed:
            raise ModelwrightError(
                f"{self.name}.patience: there is no validation part to judge by: give one by "
                "data.split.validation, or leave patience out"
            )
        if items:
            values = {"loss": total / items}
            self._judge(step, values["loss"])
            if spelled:
                values["bits_per_byte"] = total / spelled / math.log(2)
            shown = [f"{n:.4f} {k.replace('_', ' ')}" for k, n in values.items()][-1]
            self.validated = f"{shown} at {step}"
            self.log.write({"step": step, "validation": values})
            if tell := _VALIDATED.get():
                tell(self.name, step, values)
        if self.values.get("noise_scale") and t.world.alone:
            self._noise(step)

    def _judge(self, step: int, loss: float) -> None:
        """Keep the model where it is better than before.

        Its line of the log follows: a run that is killed in between validates this step again.
        """
        if self.patience.allowed:
            better = self.patience.better(step, loss) and self.trainer.world.is_main
            if self.trainer.world.agree(better):
                self.keep_best(step, self.totals)

    def _exhausted(self) -> bool:
        """Whether there is no gain left, as the first process sees it, which has the log."""
        if not self.patience.allowed:
            return False
        world = self.trainer.world
        return world.agree(world.is_main and self.patience.exhausted())

    def _leaving(self, step: int) -> bool:
        """Whether a signal has asked to stop, and this is not the end anyway.

        On several processes one cannot leave what the others are in.
        """
        return signals.asked() and self.trainer.world.alone and step < self.values["steps"]

    def catch_up(self) -> None:
        """Validate and sample at the step that is gone on from, where a stop came between."""
        step = self.first
        if not step:
            return
        validate, sample = map(self.trainer.world.agree, self._due())
        if validate:
            self.validate(step)
        if sample:
            self.sample(step)
        if step < self.values["steps"] and self._exhausted():
            self.end(step)

    def _due(self) -> tuple[bool, bool]:
        """Whether the first step is to be validated and sampled, and was not."""
        step, v = self.first, self.values
        lines = [json.loads(line) for line in self.log.path.read_text().splitlines()]
        validated = any("validation" in line for line in lines if line["step"] == step)
        sampled = self.sampler is None or kept_at(self.run, self.name, step)
        return (
            step % v["validate_every"] == 0 and not validated,
            step % v["sample_every"] == 0 and not sampled,
        )

    def _noise(self, step: int) -> None:
        """The gradient noise scale at the parameters as they are, in items of the objective."""
        found = measured_noise_scale(self.trainer, step)
        if found is not None:
            values = {"signal": found.signal, "noise": found.noise}
            if found.signal > 0:
                values["items"] = found.items
            self.log.write({"step": step, "noise_scale": values})

    def sample(self, step: int) -> None:
        """Answers of the model as it is now, kept in samples/."""
        t = self.trainer
        with uncompiled(), t.optimizers.evaluation(), compute(t.precision, t.device):
            model = t.held.plain()
            if t.world.is_main and self.sampler is not None:
                self.sampler(model, step)

    def summary(self) -> dict[str, Any]:
        """Totals for the manifest."""
        computed, busy = self.totals["computed"], self.totals["busy_seconds"]
        flops = self.totals["flops"]
        return {
            "tokens" if self.unit == "tokens" else "examples_seen": computed,
            "items": self.totals["items"],
            "busy_seconds": round(busy, 3),
            "flops": flops,
            "mfu": round(flops / busy / (self.matmul_gflops * 1e9), 4) if busy else 0.0,
            "peak_memory_bytes": runtime.peak_memory_bytes(),
        }
