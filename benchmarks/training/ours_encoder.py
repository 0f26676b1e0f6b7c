"""Our side of the classification: an encoder over film reviews, through the public parts."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.training import data
from benchmarks.training.clock import Clock, emit
from benchmarks.training.ours import Stamps, build_trainer, built
from benchmarks.training.shapes import CLASSIFIER, CLASSIFIER_DROPOUT
from modelwright.data.codecs import labelled_text
from modelwright.models import encoder
from modelwright.objectives import classification
from modelwright.training.examples import Shuffled
from modelwright.training.train import Trainer
from modelwright.types import Ragged


class Labelled(labelled_text.Codec):
    """The codec of labelled texts for data that are numbers already."""

    def __init__(self) -> None:
        self.vocabulary, self.longest = CLASSIFIER.vocabulary, CLASSIFIER.context
        self.labels = ["negative", "positive"]


def main() -> None:
    """Measure reviews a second over one pass."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    clock, seed = Clock(), arguments.seed
    torch.manual_seed(seed)
    config = encoder.Config(
        vocabulary=CLASSIFIER.vocabulary,
        depth=CLASSIFIER.depth,
        width=CLASSIFIER.width,
        heads=CLASSIFIER.heads,
        hidden=4 * CLASSIFIER.width,
        context=CLASSIFIER.context,
        classes=2,
        dropout=CLASSIFIER_DROPOUT,
    )
    model = built(config, lengths_vary=True)

    def over(reviews: list[tuple[data.Tokens, int]], rate: float) -> Trainer:
        tokens = Ragged.of([t.astype(np.uint16) for t, _ in reviews])
        columns = {"tokens": tokens, "label": np.array([y for _, y in reviews])}
        settings = {
            "optimizer": "adamw",
            "learning_rate": rate,
            "precision": "bfloat16",
            "steps": len(reviews) // CLASSIFIER.batch,
        }
        objective = classification.Objective(Labelled())
        by_length = "" if objective.packs else "tokens"
        examples = Shuffled(columns, CLASSIFIER.batch, seed=seed, by_length=by_length)
        return build_trainer(model, objective, examples, settings, seed)

    def reviews(count: int, seed: int) -> list[tuple[data.Tokens, int]]:
        return data.reviews(CLASSIFIER.vocabulary, CLASSIFIER.context, count, seed)

    over(reviews(4 * CLASSIFIER.batch, 99), 0.0).run(0, Stamps(Clock()))
    chosen = reviews(arguments.documents, seed)
    trainer = over(chosen, 5e-4)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    emit(
        tokens=len(chosen),
        seconds=clock.stamps[-1] - clock.stamps[0],
        mean_length=float(np.mean([len(t) for t, _ in chosen])),
        start_up_seconds=clock.stamps[0],
        losses=[float(np.mean(clock.losses))],
    )


if __name__ == "__main__":
    main()
