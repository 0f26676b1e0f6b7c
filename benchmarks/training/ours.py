"""Our side of every comparison: the library's public parts with their defaults, nothing else.

What is tried to make us faster belongs into the library, not here; settings of the runs to a
loss stand in ``shakespeare.yaml``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.training import data
from benchmarks.training.clock import Clock, emit, peak_bytes
from benchmarks.training.shapes import (
    MNIST_BATCH,
    MNIST_MOMENTUM,
    MNIST_RATE,
    MNIST_WIDTHS,
    SHAPES,
    TUNED,
    TUNED_HIDDEN,
)
from modelwright import runtime
from modelwright.data.codecs import text, vectors
from modelwright.models import decoder, mlp
from modelwright.models.model import ModelConfig
from modelwright.objectives import classification, next_token
from modelwright.training import thread_count
from modelwright.training.compiled import WholeStep, can_compile, compile_regions, uncompiled
from modelwright.training.examples import Examples, Shuffled, Windows, once, windows_once
from modelwright.training.optimizers import build_optimizers
from modelwright.training.train import Observer, Record, Trainer, compute
from modelwright.types import Batch, Columns, Objective, Ragged

RECIPE = Path(__file__).with_name("shakespeare.yaml")


class Numbers(text.Codec):
    """The text codec for data that are numbers already: a vocabulary, and no tokenizer."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.end = vocabulary  # which no row holds: windows are one document, as the peers' are
        self.token_bytes = np.ones(vocabulary, dtype=np.int64)


class Stamps(Observer):
    """Stamp the clock after every step; save nothing."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def after_step(self, record: Record, *, last: bool) -> None:  # noqa: ARG002
        """Mark the end of the step."""
        self.clock.stamp(record.loss)

    def save(self, step: int) -> None:
        """Keep nothing."""


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "target", "mnist", "tune"))
    parser.add_argument("--shape", default="S", choices=SHAPES)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--precision", default="bfloat16", choices=runtime.PRECISIONS)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="mnist: the step as one function")
    parser.add_argument("--target", default="1.60", help="a loss, as named in shakespeare.yaml")
    arguments = parser.parse_args()
    {"speed": speed, "target": to_target, "mnist": mnist, "tune": tune}[arguments.what](arguments)


def stream_columns(tokens: data.Tokens) -> Columns:
    """One document of tokens, all to be learned."""
    small = tokens.astype(np.uint16)
    return {"tokens": Ragged.of([small]), "learn": Ragged.of([np.ones(len(small), np.bool_)])}


def built(config: ModelConfig, *, lengths_vary: bool = False) -> torch.nn.Module:
    """The model, its repeated parts compiled where this machine can."""
    model = config.build()
    if can_compile(runtime.device()):
        compile_regions(model, lengths_vary=lengths_vary)
    return model


def build_trainer(
    model: torch.nn.Module,
    objective: Objective,
    examples: Examples,
    settings: dict[str, Any],
    seed: int,
) -> Trainer:
    """The loop as ``modelwright train`` builds it; ``settings`` are those of a recipe's stage."""
    values = {"momentum": 0.95, "weight_decay": 0.0, "schedule": "constant", **settings}
    precision = runtime.PRECISIONS[values["precision"]]
    rate = values["learning_rate"]
    optimizers = build_optimizers(
        model,
        values["optimizer"],
        learning_rate=rate,
        matrix_learning_rate=values.get("matrix_learning_rate", rate),
        momentum=values["momentum"],
        weight_decay=values["weight_decay"],
        precision=precision,
    )
    return Trainer(
        model=model,
        objective=objective,
        examples=examples,
        optimizers=optimizers,
        steps=values["steps"],
        seed=seed,
        schedule=values["schedule"],
        warmup=values.get("warmup", 0.0),
        decay=values.get("decay", 0.0),
        clip=values.get("clip", 1.0),
        precision=precision,
    )


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of ordinary steps at a shape."""
    clock, shape = Clock(), SHAPES[arguments.shape]
    torch.manual_seed(arguments.seed)
    config = decoder.Config(
        vocabulary=shape.vocabulary,
        depth=shape.depth,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.heads,
        hidden=4 * shape.width,
        context=shape.context,
    )
    columns = stream_columns(data.stream(shape.vocabulary, 500_000, arguments.seed))
    trainer = build_trainer(
        built(config),
        next_token.Objective(Numbers(shape.vocabulary)),
        Windows(columns, shape.batch, shape.context, seed=arguments.seed),
        {
            "optimizer": arguments.optimizer,
            "learning_rate": 1e-3,
            "matrix_learning_rate": 0.02,
            "weight_decay": 0.1,
            "precision": arguments.precision,
            "steps": arguments.warmup + arguments.steps,
        },
        arguments.seed,
    )
    clock.stamp()
    trainer.run(0, Stamps(clock))
    clock.report(arguments.warmup, shape.tokens)


def to_target(arguments: argparse.Namespace) -> None:
    """Wall time of a whole run of ``shakespeare.yaml``, and the loss it ends with."""
    clock = Clock()
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))[arguments.target]
    train, validation = data.shakespeare()
    torch.manual_seed(arguments.seed)
    vocabulary = int(max(train.max(), validation.max())) + 1
    config = decoder.Config(vocabulary=vocabulary, **settings["model"])
    objective = next_token.Objective(Numbers(vocabulary))
    stage = settings["train"]
    examples = Windows(stream_columns(train), stage["batch"], config.context, seed=arguments.seed)
    model = built(config) if settings["compile"] else config.build()
    trainer = build_trainer(model, objective, examples, stage, arguments.seed)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    wall = clock.now()
    windows = windows_once(stream_columns(validation), 64, config.context)
    loss = mean_loss(trainer, (objective.collate(c, torch.Generator()) for c in windows))
    emit(
        wall_seconds=wall,
        loss=loss,
        steps=stage["steps"],
        reached=loss <= float(arguments.target),
        start_up_seconds=clock.stamps[0],
        first_step_seconds=clock.stamps[1] - clock.stamps[0],
        tokens=stage["steps"] * stage["batch"] * config.context,
    )


def mean_loss(trainer: Trainer, batches: Any) -> float:
    """Mean loss of all items of the batches, without learning from them."""
    trainer.model.eval()
    total, count = 0.0, 0
    with torch.no_grad(), uncompiled(), compute(trainer.precision, trainer.device):
        batch: Batch
        for batch in batches:
            total += float(trainer.objective.loss(trainer.model, batch))
            count += batch.count
    trainer.model.train()
    return total / count


def mnist(arguments: argparse.Namespace) -> None:
    """Samples a second and test accuracy of the perceptron."""
    clock, images = Clock(), data.mnist()
    x, y = images["x_train"], images["y_train"]
    labels = [str(i) for i in range(10)]
    scale = (np.float32(x.mean()), np.float32(x.std()))
    codec = vectors.Codec(labels, x.shape[1:], *map(np.asarray, scale), bytes_only=True)
    columns = {"features": x, "label": y.astype(np.int64)}
    features, *hidden, classes = MNIST_WIDTHS
    config = mlp.Config(features=features, classes=classes, hidden=tuple(hidden))
    per_epoch = len(x) // MNIST_BATCH
    settings = {
        "optimizer": "sgd",
        "learning_rate": MNIST_RATE,
        "momentum": MNIST_MOMENTUM,
        "clip": 0.0,
        "precision": "float32",
        "steps": arguments.epochs * per_epoch,
    }

    def fresh() -> Trainer:
        torch.manual_seed(arguments.seed)
        objective = classification.Objective(codec)
        examples = Shuffled(columns, MNIST_BATCH, seed=arguments.seed)
        return build_trainer(config.build(), objective, examples, settings, arguments.seed)

    def compiled() -> Trainer:
        made = fresh()
        if arguments.compile:
            made.whole = WholeStep(made.model, made.objective, made.clip, made.precision)
        return made

    scratch = compiled()
    tried = thread_count.candidates(runtime.cores())
    threads, _ = thread_count.chosen(thread_count.measured(lambda: scratch.step(0), tried))
    trainer = compiled()
    clock.stamp()
    with runtime.threads(threads):
        trainer.run(0, Stamps(clock))
    trainer.model.eval()
    test = codec.tensors({"features": images["x_test"], "label": images["y_test"]})
    with torch.no_grad():
        right = trainer.model(test["features"]).argmax(1) == test["label"]
    clock.report(per_epoch // 4, MNIST_BATCH, accuracy=float(right.float().mean()))


def tune(arguments: argparse.Namespace) -> None:
    """Useful tokens a second over one pass of documents of many lengths."""
    clock = Clock()
    torch.manual_seed(arguments.seed)
    config = decoder.Config(
        vocabulary=TUNED.vocabulary,
        depth=TUNED.depth,
        width=TUNED.width,
        heads=TUNED.heads,
        kv_heads=TUNED.heads,
        hidden=TUNED_HIDDEN,
        feed_forward="gated",
        context=TUNED.context,
    )
    model = built(config, lengths_vary=True)
    objective = next_token.Objective(Numbers(TUNED.vocabulary))
    stage = {
        "optimizer": "adamw",
        "learning_rate": 5e-4,
        "precision": arguments.precision,
    }

    def over(documents: list[data.Tokens], **changed: Any) -> Trainer:
        columns, seed = document_columns(documents), arguments.seed
        by_length = "" if objective.packs else "tokens"
        examples = Shuffled(columns, TUNED.batch, seed=seed, by_length=by_length)
        steps = len(documents) // TUNED.batch
        return build_trainer(model, objective, examples, {**stage, "steps": steps, **changed}, seed)

    chosen = data.documents(TUNED.vocabulary, arguments.documents, arguments.seed)
    # Warm-up on other documents, at rate zero: the measured pass starts from fresh parameters.
    warmup = data.documents(TUNED.vocabulary, 4 * TUNED.batch, seed=99)
    over(warmup, learning_rate=0.0).run(0, Stamps(Clock()))
    trainer = over(chosen)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    held_out = document_columns(data.documents(TUNED.vocabulary, 64, 77))
    peak = peak_bytes()
    batches = (objective.collate(c, torch.Generator()) for c in once(held_out, 1))
    emit(
        tokens=sum(map(len, chosen)),
        seconds=clock.stamps[-1] - clock.stamps[0],
        start_up_seconds=clock.stamps[0],
        losses=clock.losses[:1] + clock.losses[-1:],
        held_out_loss=mean_loss(trainer, batches),
        training_peak_bytes=peak,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def document_columns(documents: list[data.Tokens]) -> Columns:
    """Documents as columns, every token but the first of each to be learned."""
    tokens = Ragged.of([d.astype(np.uint16) for d in documents])
    learn = np.ones(len(tokens.values), dtype=np.bool_)
    return {"tokens": tokens, "learn": Ragged(learn, tokens.offsets)}


if __name__ == "__main__":
    main()
