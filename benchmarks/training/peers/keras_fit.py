"""Keras 3 on torch: ``fit`` for a small language model and for the perceptron of MNIST."""

from __future__ import annotations

import argparse
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from benchmarks.training import data
from benchmarks.training.clock import Clock
from benchmarks.training.shapes import (
    MNIST_BATCH,
    MNIST_MOMENTUM,
    MNIST_RATE,
    MNIST_WIDTHS,
    SHAPES,
    Shape,
)


class Stamps(keras.callbacks.Callback):
    """Stamp the clock before the first step and after every ``every`` steps."""

    def __init__(self, clock: Clock, every: int = 1) -> None:
        super().__init__()
        self.clock, self.every = clock, every

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Before the first step."""
        self.clock.stamp()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """After a step."""
        if (batch + 1) % self.every == 0:
            self.clock.stamp((logs or {}).get("loss"))


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "mnist"))
    parser.add_argument("--shape", default="S", choices=SHAPES)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    {"speed": speed, "mnist": mnist}[arguments.what](arguments)


class Positions(keras.layers.Layer):
    """Adds a learned vector for every position."""

    def build(self, shape: tuple[int, ...]) -> None:
        """One vector a position."""
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x: torch.Tensor) -> torch.Tensor:
        """Stream (B, T, width), positions added."""
        return x + keras.ops.cast(self.table, x.dtype)


def decoder(shape: Shape) -> keras.Model:
    """Pre-norm blocks of causal attention and a GELU layer of 4 x width, as in GPT-2."""
    layers = keras.layers
    tokens = keras.Input((shape.context,), dtype="int64")
    x = Positions()(layers.Embedding(shape.vocabulary, shape.width)(tokens))
    for _ in range(shape.depth):
        attention = layers.MultiHeadAttention(shape.heads, shape.width // shape.heads)
        normed = layers.LayerNormalization()(x)
        x = x + attention(normed, normed, use_causal_mask=True)
        wide = layers.Dense(4 * shape.width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(shape.width)(wide)
    logits = layers.Dense(shape.vocabulary, use_bias=False, dtype="float32")
    return keras.Model(tokens, logits(layers.LayerNormalization()(x)))


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of ordinary steps."""
    shape, clock = SHAPES[arguments.shape], Clock()
    if arguments.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = decoder(shape)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    count = (arguments.warmup + arguments.steps) * shape.batch
    tokens = data.stream(shape.vocabulary, 500_000, arguments.seed)
    starts = np.random.default_rng(arguments.seed).integers(len(tokens) - shape.context, size=count)
    rows = tokens[starts[:, None] + np.arange(shape.context + 1)]
    model.fit(
        rows[:, :-1],
        rows[:, 1:],
        batch_size=shape.batch,
        epochs=1,
        verbose=0,
        callbacks=[Stamps(clock)],
    )
    clock.report(arguments.warmup, shape.tokens)


def mnist(arguments: argparse.Namespace) -> None:
    """Samples a second and test accuracy of the perceptron."""
    clock, images = Clock(), data.mnist()
    torch.set_num_threads(1)
    x = images["x_train"].astype(np.float32)
    mean, deviation = x.mean(), x.std()
    features, *hidden, classes = MNIST_WIDTHS
    inner = [keras.layers.Dense(width, activation="relu") for width in hidden]
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Reshape((features,)),
            *inner,
            keras.layers.Dense(classes),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(MNIST_RATE, momentum=MNIST_MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    whole = len(x) // MNIST_BATCH * MNIST_BATCH
    every = 50
    model.fit(
        ((x - mean) / deviation)[:whole],
        images["y_train"][:whole].astype(np.int64),
        batch_size=MNIST_BATCH,
        epochs=arguments.epochs,
        shuffle=True,
        verbose=0,
        callbacks=[Stamps(clock, every)],
    )
    test = ((images["x_test"] - mean) / deviation).astype(np.float32)
    chosen = model.predict(test, batch_size=1000, verbose=0).argmax(1)
    steps = whole // MNIST_BATCH
    # Stamps stand at every 50th step of an epoch; the rest of an epoch falls to the next stamp.
    per_stamp = MNIST_BATCH * steps / (steps // every)
    accuracy = float((chosen == images["y_test"]).mean())
    clock.report(steps // every, per_stamp, accuracy=accuracy)


if __name__ == "__main__":
    main()
