"""Make the checkpoint that is tuned: a small Llama, trained a little, as published files."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.training import data
from benchmarks.training.clock import Clock, emit
from benchmarks.training.ours import Numbers, Stamps, build_trainer, built, stream_columns
from benchmarks.tuning.work import BASE_RULE, FIELDS, VOCABULARY
from modelwright.hub.families import family_of
from modelwright.hub.writing import write
from modelwright.models import llama
from modelwright.objectives import next_token
from modelwright.training.examples import Windows

ROWS, LENGTH = 4, 256  # of a step
TOKENS = 2_000_000


def main() -> None:
    """Train and write it into an empty folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = llama.Config(**FIELDS)
    model = built(config)
    columns = stream_columns(data.stream(VOCABULARY, TOKENS, 5, BASE_RULE))
    settings = {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "precision": "bfloat16",
        "steps": given.steps,
        "schedule": "linear",
        "warmup": 0.05,
    }
    examples = Windows(columns, ROWS, LENGTH, seed=0)
    trainer = build_trainer(model, next_token.Objective(Numbers(VOCABULARY)), examples, settings, 0)
    clock = Clock()
    trainer.run(0, Stamps(clock))
    given.folder.mkdir(parents=True, exist_ok=True)
    write(given.folder, model, config, family_of("llama", "bench"))
    emit(losses=clock.losses[:1] + clock.losses[-1:], seconds=clock.now())


if __name__ == "__main__":
    main()
