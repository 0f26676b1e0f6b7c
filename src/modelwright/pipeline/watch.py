"""The observer of a stage: logs every step, validates, samples and saves as due."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from modelwright import runtime
from modelwright.run import Run
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.training.observe import MetricLog, ProgressLine
from modelwright.training.train import Observer, Record, Trainer, compute
from modelwright.types import Codec, Columns, Turn

SAMPLE_TOKENS = 48
CHECKS = (0.1, 0.2, 0.3)  # shares of the time at which the steps are planned anew


@dataclass
class StageObserver(Observer):
    """What happens beside the updates. None of it changes them (law 12)."""

    run: Run
    name: str
    first: int
    values: dict[str, Any]
    trainer: Trainer
    flops_per_item: float
    matmul_gflops: float
    validation: Callable[[], Iterator[Columns]]
    prompts: Sequence[Sequence[Turn]]
    codec: Codec
    epoch_steps: float  # steps of one pass over the data; 0: do not speak of epochs
    say: Callable[[str], None]
    allowed: float  # seconds this stage may take; 0: its steps are fixed
    replan: Callable[[int, int], None]  # (step, new number of steps)
    totals: dict[str, float]  # of the steps before ``first``
    write: Callable[[int, dict[str, float]], None]

    def __enter__(self) -> Self:
        self.log = MetricLog(self.run.path, self.name, self.first)
        self.progress = ProgressLine(self.name, self.values["steps"], self.first)
        self.progress.__enter__()
        self.started = time.perf_counter()
        zero = {"computed": 0, "items": 0, "busy_seconds": 0.0, "epoch_loss": 0.0, "epoch_items": 0}
        self.totals = {**zero, **self.totals}
        self.saved = self.first
        self.began = self.log.offset
        self.checks = (
            [] if not self.allowed else [s for s in CHECKS if s * self.allowed > self.began]
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.__exit__(kind, error, trace)
        self.log.close()
        self.run.stage(self.name).update(self.summary())

    def after_step(self, record: Record, *, last: bool) -> None:
        """Log the step; validate, sample and save when it is time."""
        v, step = self.values, record.step
        if self.checks and not last:
            self._keep_to_time(step)
        self.totals["computed"] += record.computed
        self.totals["items"] += record.items
        self.totals["busy_seconds"] += record.seconds
        rate = record.computed / max(record.seconds, 1e-9)
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
        self.log.write(line)
        shown = f"{bits:.3f} bits/byte" if bits is not None else f"loss {record.loss:.4f}"
        mfu = self.flops_per_item * rate / (self.matmul_gflops * 1e9)
        self.progress.update(step, f"{shown}  {rate:,.0f}/s  {mfu:.0%} MFU")
        self._epoch(record, last=last)
        if step % v["validate_every"] == 0 or last:
            self.validate(step)
        if self.prompts and (step % v["sample_every"] == 0 or last):
            self.sample(step)
        if step % v["save_every"] == 0 or last:
            self.save(step)

    def _epoch(self, record: Record, *, last: bool) -> None:
        """At the end of a pass over the data, say the running loss: its mean over the pass."""
        if not self.epoch_steps:
            return
        self.totals["epoch_loss"] += record.loss * record.items
        self.totals["epoch_items"] += record.items
        done = int(record.step / self.epoch_steps)
        if done > int((record.step - 1) / self.epoch_steps) or last:
            loss = self.totals["epoch_loss"] / self.totals["epoch_items"]
            epochs = self.values["steps"] / self.epoch_steps
            self.say(f"{self.name}: epoch {done}/{epochs:.0f}  running loss {loss:.4f}")
            self.log.write({"step": record.step, "epoch": done, "running_loss": loss})
            self.totals.update(epoch_loss=0.0, epoch_items=0)

    def _keep_to_time(self, step: int) -> None:
        """At set shares of the time, plan as many steps as the speed so far lets it have.

        Always before the rate begins to fall: with a warm-up-stable-decay schedule the steps
        already done are then those of the new plan as well.
        """
        spent = time.perf_counter() - self.started
        if self.began + spent < self.checks[0] * self.allowed or step - self.first < 5:
            return
        self.checks.pop(0)
        left = self.allowed - self.began - spent
        steps = step + int(left / (spent / (step - self.first)))
        earliest = math.ceil((step + 1) / max(1e-6, 1 - self.values["decay"]))
        self.replan(step, max(steps, earliest))
        self.progress.total = self.values["steps"]

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``, once."""
        if step != self.saved:
            self.write(step, self.totals)
            self.saved = step

    def validate(self, step: int) -> None:
        """The mean loss on the validation part, logged with the step."""
        total, items, spelled = 0.0, 0, 0
        t = self.trainer
        generator = torch.Generator().manual_seed(0)
        t.model.eval()
        with torch.no_grad(), compute(t.precision, t.device):
            for columns in self.validation():
                batch = t.objective.collate(columns, generator).to(t.device)
                total += float(t.objective.loss(t.model, batch))
                items, spelled = items + batch.count, spelled + batch.bytes
        t.model.train()
        if items:
            values = {"loss": total / items}
            if spelled:
                values["bits_per_byte"] = total / spelled / math.log(2)
            self.log.write({"step": step, "validation": values})

    def sample(self, step: int) -> None:
        """Greedy answers to the prompts, kept in samples/."""
        engine = Engine(self.trainer.model, self.codec)
        with compute(self.trainer.precision, self.trainer.device):
            answers = engine.answer(self.prompts, SamplingParams(max_tokens=SAMPLE_TOKENS))
        path = self.run.path / "samples" / f"{self.name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        kept = []
        if path.exists():  # a resumed run says again what it had said after its checkpoint
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) < step]
        for prompt, answer in zip(self.prompts, answers, strict=True):
            record = {"step": step, "prompt": prompt[-1].text, "text": answer.text}
            kept.append(json.dumps(record, ensure_ascii=False))
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """Totals for the manifest."""
        computed, busy = self.totals["computed"], self.totals["busy_seconds"]
        flops = self.flops_per_item * computed
        return {
            "tokens" if "tokens" in self.codec.ragged else "examples_seen": computed,
            "items": self.totals["items"],
            "busy_seconds": round(busy, 3),
            "flops": flops,
            "mfu": round(flops / busy / (self.matmul_gflops * 1e9), 4) if busy else 0.0,
            "peak_memory_bytes": runtime.peak_memory_bytes(),
        }


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1 if not line.strip() else 1 << 62  # a half line is dropped
