"""ResNet-18 in Keras on torch, trained by ``fit``; crop and mirror are layers of its own."""

from __future__ import annotations

import argparse
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from torch import Tensor

from benchmarks.training.clock import Clock
from benchmarks.training.peers.keras_fit import Stamps
from benchmarks.vision import pictures
from benchmarks.vision.shapes import (
    BATCH,
    DEPTHS,
    MOMENTUM,
    RATE,
    WEIGHT_DECAY,
    WIDTHS,
)


def network() -> keras.Model:
    """The network for pictures of 32 x 32, with its views before it."""
    layers, decay = keras.layers, keras.regularizers.L2(WEIGHT_DECAY / 2)

    def convolved(x: Tensor, made: int, kernel: int, stride: int) -> Tensor:
        conv = layers.Conv2D(made, kernel, stride, "same", use_bias=False, kernel_regularizer=decay)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(conv(x))

    given = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(pictures.PADDING)(given)
    x = layers.RandomFlip("horizontal")(layers.RandomCrop(32, 32)(x))
    x = layers.ReLU()(convolved(x, WIDTHS[0], 3, 1))
    for number, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        for place in range(depth):
            stride = 2 if number and not place else 1
            y = layers.ReLU()(convolved(x, width, 3, stride))
            y = convolved(y, width, 3, 1)
            beside = convolved(x, width, 1, stride) if stride > 1 else x
            x = layers.ReLU()(y + beside)
    x = layers.GlobalAveragePooling2D()(x)
    last = layers.Dense(pictures.CLASSES, kernel_regularizer=decay, dtype="float32")
    return keras.Model(given, last(x))


def main() -> None:
    """Train, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="float32", choices=("bfloat16", "float32"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    clock, found = Clock(), pictures.cifar10(arguments.count)
    keras.utils.set_random_seed(arguments.seed)
    if arguments.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = network()
    whole = len(found.x) // BATCH * BATCH
    steps = arguments.epochs * (whole // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    mean, deviation = (np.float32(v) for v in (pictures.MEAN, pictures.DEVIATION))
    model.fit(
        ((found.x[:whole] / np.float32(255)) - mean) / deviation,
        found.y[:whole],
        batch_size=BATCH,
        epochs=arguments.epochs,
        shuffle=True,
        verbose=0,
        callbacks=[Stamps(clock)],
    )
    with clock.paused(), torch.no_grad():
        right = pictures.accuracy(lambda x: model(x, training=False).float().cpu(), found)
    clock.report(max(1, whole // BATCH // 4), BATCH, accuracy=right)


if __name__ == "__main__":
    main()
