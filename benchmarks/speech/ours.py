"""Ours: ``python -m benchmarks.speech.ours features|training [--steps N]``, a line of JSON."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.speech import shapes
from benchmarks.training.clock import Clock
from benchmarks.training.ours import Stamps, build_trainer
from modelwright import runtime
from modelwright.data.augment.batches import Augment
from modelwright.data.codecs.speech import Codec
from modelwright.data.sound_rows import sound_rows
from modelwright.models import conformer
from modelwright.objectives import ctc
from modelwright.tasks.speech_recognition import SpeechRecognition
from modelwright.training.examples import Augmented, Shuffled
from modelwright.types import Columns, stack

VIEWS = [
    {"speed": {"slowest": shapes.SLOWEST, "fastest": shapes.FASTEST}},
    {
        "spec_augment": {
            "frequency_masks": shapes.FREQUENCY_MASKS,
            "frequency": shapes.FREQUENCY,
            "time_masks": shapes.TIME_MASKS,
            "time": shapes.TIME,
        }
    },
]


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("features", "training"))
    parser.add_argument("--steps", type=int, default=shapes.STEPS)
    options = parser.parse_args()
    clock = Clock()
    codec, columns = prepared()
    torch.set_num_threads(runtime.cores())
    torch.manual_seed(1)
    shuffled = Shuffled(columns, shapes.BATCH, seed=1, by_length="samples")
    examples = Augmented(shuffled, Augment(VIEWS, "speech", 1, codec))
    if options.what == "features":
        steps = -(-shapes.FEATURED // shapes.BATCH)
        clock.stamp()
        for step in range(1 + steps):
            for part in examples(step):
                codec.tensors(part)
            clock.stamp()
        clock.report(1, shapes.BATCH)
        return
    config = conformer.Config(
        features=codec.features,
        outputs=codec.vocabulary,
        depth=shapes.DEPTH,
        width=shapes.WIDTH,
        heads=shapes.HEADS,
        kernel=shapes.KERNEL,
        dropout=shapes.DROPOUT,
    )
    model = config.build()
    settings = {
        "optimizer": "adamw",
        "learning_rate": shapes.LEARNING_RATE,
        "clip": shapes.CLIP,
        "precision": "float32",
        "steps": shapes.WARMUP + options.steps,
    }
    trainer = build_trainer(model, ctc.Objective(codec), examples, settings, 1)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    weights = sum(p.numel() for p in model.parameters())
    clock.report(shapes.WARMUP, shapes.BATCH, parameters=weights)


def prepared() -> tuple[Codec, Columns]:
    """The fitted codec, and the stored columns: what a run's first stage leaves behind."""
    task = SpeechRecognition()
    found = (task.examples(row) for row in sound_rows(shapes.recordings()))
    examples = [e for of in found if not isinstance(of, str) for e in of]
    codec = Codec.fit(examples, rate=shapes.RATE, bands=shapes.BANDS)
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    return codec, {k: v if k in codec.ragged else np.asarray(v) for k, v in columns.items()}


if __name__ == "__main__":
    main()
