"""One training of an ablation: ``python -m benchmarks.ablations.trial '{"seed": 1, ...}'``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch

from benchmarks.training import data
from benchmarks.training.ours import Numbers, build_trainer, mean_loss, stream_columns
from modelwright.models import decoder
from modelwright.objectives import next_token
from modelwright.training.examples import Windows, windows_once
from modelwright.training.train import Observer, Record

MODEL = {
    "depth": 4,
    "width": 256,
    "heads": 4,
    "kv_heads": 4,
    "context": 128,
    "value_embeddings": True,
    "shortcuts": True,
}
TRAIN = {
    "batch": 32,
    "optimizer": "muon",
    "learning_rate": 0.005,
    "matrix_learning_rate": 0.03,
    "momentum": 0.95,
    "schedule": "warmup_stable_decay",
    "warmup": 0.02,
    "decay": 0.6,
    "precision": "bfloat16",
}


class _Times(Observer):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def after_step(self, record: Record, *, last: bool) -> None:  # noqa: ARG002
        self.seconds.append(record.seconds)


def main(order: dict[str, Any]) -> None:
    """Train, and print the validation loss and the median seconds of a step."""
    start = time.perf_counter()
    model_fields, stage = {**MODEL, **order.get("model", {})}, {**TRAIN, **order.get("train", {})}
    stage["steps"] = order["steps"]
    train, validation = data.shakespeare()
    torch.manual_seed(order["seed"])
    vocabulary = int(max(train.max(), validation.max())) + 1
    config = decoder.Config(vocabulary=vocabulary, **model_fields)
    objective = next_token.Objective(Numbers(vocabulary))
    examples = Windows(stream_columns(train), stage["batch"], config.context, seed=order["seed"])
    trainer = build_trainer(config.build(), objective, examples, stage, order["seed"])
    times = _Times()
    trainer.run(0, times)
    windows = windows_once(stream_columns(validation), 64, config.context)
    loss = mean_loss(trainer, (objective.collate(c, torch.Generator()) for c in windows))
    seconds = statistics.median(times.seconds)
    print(json.dumps({"loss": loss, "seconds": seconds, "wall": time.perf_counter() - start}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
