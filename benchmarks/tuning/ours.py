"""Our side: the library's public parts with their defaults, as ``modelwright run`` puts them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.training.clock import Clock, emit, peak_bytes
from benchmarks.training.ours import Numbers, Stamps, build_trainer, document_columns, mean_loss
from benchmarks.tuning.work import (
    ALPHA,
    BATCH,
    DPO_BETA,
    HELD_OUT,
    PAIRS,
    RANK,
    RATES,
    VOCABULARY,
    Pair,
    arguments,
    documents,
    pairs,
)
from modelwright import runtime
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.models import lora
from modelwright.objectives import next_token, preference
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.references import log_probabilities
from modelwright.training.compiled import can_compile, compile_regions
from modelwright.training.examples import Shuffled, once
from modelwright.training.train import Trainer
from modelwright.types import Columns, Objective, Ragged, rows_in


class Work(NamedTuple):
    """What one kind of tuning learns from, in columns."""

    objective: Objective
    chosen: Columns
    warmup: Columns
    held_out: Columns
    tokens: int  # read in one pass
    batch: int


def main() -> None:
    """Tune what the command line says; print one line of JSON."""
    given = arguments("full", "lora", "dpo")
    torch.manual_seed(given.seed)
    model = load(find(str(given.base))).model.train()
    work = _pairs(given.documents, given.seed) if given.what == "dpo" else _texts(given)
    if given.what == "lora":
        lora.adapt(model, lora.Adapter(rank=RANK, alpha=ALPHA))
    if can_compile(runtime.device()):
        compile_regions(model, lengths_vary=True)
    stage = {
        "optimizer": "adamw",
        "learning_rate": RATES[given.what],
        "precision": given.precision,
    }

    def over(columns: Columns, **changed: Any) -> Trainer:
        examples = Shuffled(columns, work.batch, seed=given.seed)
        settings = {**stage, "steps": rows_in(columns) // work.batch, **changed}
        return build_trainer(model, work.objective, examples, settings, given.seed)

    precision = runtime.PRECISIONS[given.precision]
    held_out = _referred(work.held_out, work, model, precision)
    # On other rows, at rate zero: the measured pass starts from the same parameters.
    warmup = over(_referred(work.warmup, work, model, precision), learning_rate=0.0)
    warmup.run(0, Stamps(Clock()))
    clock = Clock()
    began, cpu = clock.now(), time.process_time()
    trainer = over(_referred(work.chosen, work, model, precision))
    trainer.run(0, Stamps(clock))
    cpu = time.process_time() - cpu
    peak, drawn = peak_bytes(), torch.Generator()
    batches = (work.objective.collate(c, drawn) for c in once(held_out, 1))
    emit(
        tokens=work.tokens,
        seconds=clock.stamps[-1] - began,
        cpu_seconds=cpu,
        losses=clock.losses[:1] + clock.losses[-1:],
        training_peak_bytes=peak,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        held_out_loss=mean_loss(trainer, batches),
    )


def _texts(given: Any) -> Work:
    chosen = documents(given.documents, given.seed)
    others = (documents(4 * BATCH, 99), documents(HELD_OUT, 77))
    one, two, three = (document_columns(d) for d in (chosen, *others))
    objective = next_token.Objective(Numbers(VOCABULARY))
    return Work(objective, one, two, three, sum(map(len, chosen)), BATCH)


def _pairs(count: int, seed: int) -> Work:
    chosen = pairs(count, seed)
    others = (pairs(4 * PAIRS, 990), pairs(HELD_OUT, 770))
    one, two, three = (pair_columns(p) for p in (chosen, *others))
    objective = preference.Objective(Numbers(VOCABULARY), beta=DPO_BETA)
    return Work(objective, one, two, three, sum(p.read for p in chosen), PAIRS)


def pair_columns(rows: list[Pair]) -> Columns:
    """Pairs as columns, the answers to be learned."""

    def column(texts: list[Any], dtype: Any) -> Ragged:
        return Ragged.of([np.concatenate(parts).astype(dtype) for parts in texts])

    def marks(prompt: Any, answer: Any) -> list[Any]:
        return [np.zeros(len(prompt), np.bool_), np.ones(len(answer), np.bool_)]

    return {
        "tokens": column([[p.prompt, p.chosen] for p in rows], np.uint16),
        "learn": column([marks(p.prompt, p.chosen) for p in rows], np.bool_),
        "rejected": column([[p.prompt, p.rejected] for p in rows], np.uint16),
        "rejected_learn": column([marks(p.prompt, p.rejected) for p in rows], np.bool_),
    }


def _referred(columns: Columns, work: Work, model: nn.Module, precision: torch.dtype) -> Columns:
    """With what the model gives the answers before it is tuned, where the loss asks for it."""
    if not getattr(work.objective, "refers", False):
        return columns
    base: Any = Fitted.__new__(Fitted)
    base.model, base.objective = model, work.objective
    found = log_probabilities(base, columns, precision)
    model.train()
    return preference.of_reference(columns, found)


if __name__ == "__main__":
    main()
