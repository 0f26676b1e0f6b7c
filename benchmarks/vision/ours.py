"""Our side: the library's public parts with their defaults, settings in ``ninety.yaml``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from benchmarks.training.clock import Clock, emit
from benchmarks.training.ours import Stamps, build_trainer, built
from benchmarks.vision import pictures
from benchmarks.vision.shapes import BATCH, MOMENTUM, RATE, WEIGHT_DECAY
from modelwright import runtime
from modelwright.data.augment.batches import Augment
from modelwright.data.codecs import vectors
from modelwright.models import fast_cnn, resnet
from modelwright.objectives import classification
from modelwright.training.compiled import uncompiled
from modelwright.training.examples import Augmented, Shuffled
from modelwright.training.train import Trainer, compute
from modelwright.types import Columns

SETTINGS = Path(__file__).with_name("ninety.yaml")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("resnet18", "ninety"))
    parser.add_argument("--count", type=int, help="pictures to train on (default: all)")
    parser.add_argument("--epochs", type=float, help="resnet18: 3; ninety: as its settings say")
    parser.add_argument("--precision", default="bfloat16", choices=runtime.PRECISIONS)
    parser.add_argument("--compile", action="store_true", help="resnet18: its blocks")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    {"resnet18": throughput, "ninety": ninety}[arguments.what](arguments)


def columns_of(found: pictures.Pictures) -> tuple[vectors.Codec, Columns]:
    """The codec and the stored pictures to train on."""
    scale = (np.asarray(v, np.float32) * 255 for v in (pictures.MEAN, pictures.DEVIATION))
    labels = [str(i) for i in range(pictures.CLASSES)]
    codec = vectors.Codec(labels, found.x.shape[1:], *scale, bytes_only=True)
    return codec, {"features": found.x, "label": found.y}


def trainer_of(
    model: nn.Module,
    found: pictures.Pictures,
    stage: dict[str, Any],
    seed: int,
    label_smoothing: float = 0.0,
) -> Trainer:
    """The loop as ``modelwright train`` builds it, with the stage's views."""
    codec, columns = columns_of(found)
    views = Augment(stage["augment"], "vectors", seed, codec)
    examples = Augmented(Shuffled(columns, stage["batch"], seed=seed), views)
    objective = classification.Objective(codec, label_smoothing=label_smoothing)
    stage["steps"] = int(stage["epochs"] * (len(found.x) // stage["batch"]))
    return build_trainer(model, objective, examples, stage, seed)


def accuracy(trainer: Trainer, found: pictures.Pictures, *, mirrored: bool = False) -> float:
    """The share of the held-out pictures that are named right, see ``pictures.accuracy``."""
    trainer.model.eval()
    with torch.no_grad(), uncompiled(), compute(trainer.precision, trainer.device):
        return pictures.accuracy(trainer.model, found, mirrored=mirrored)


def throughput(arguments: argparse.Namespace) -> None:
    """Pictures a second of ResNet-18, and the accuracy after the epochs."""
    clock = Clock()
    found = pictures.cifar10(arguments.count)
    torch.manual_seed(arguments.seed)
    config = resnet.Config(
        classes=pictures.CLASSES, image=found.x.shape[1:3], **resnet.Config.sizes["resnet18"]
    )
    stage = {
        "optimizer": "sgd",
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "weight_decay": WEIGHT_DECAY,
        "schedule": "cosine",
        "clip": 0.0,
        "precision": arguments.precision,
        "batch": BATCH,
        "epochs": arguments.epochs or 3,
        "augment": [{"crop": {"padding": pictures.PADDING}}, "flip"],
    }
    # In bfloat16 our kernels join the passes around the products already: see ModelConfig.fused.
    model = built(config) if arguments.compile else config.build()
    trainer = trainer_of(model, found, stage, arguments.seed)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    with clock.paused():
        right = accuracy(trainer, found)
    warmup = max(1, len(found.x) // BATCH // 4)
    clock.report(warmup, BATCH, accuracy=right)


def ninety(arguments: argparse.Namespace) -> None:
    """Wall time of a whole run of ``ninety.yaml``, and the accuracy that it ends with."""
    clock = Clock()
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    found = pictures.cifar10(arguments.count)
    torch.manual_seed(arguments.seed)
    config = fast_cnn.Config(
        classes=pictures.CLASSES, image=found.x.shape[1:3], **settings["model"]
    )
    stage = {**settings["train"]}
    stage["epochs"] = arguments.epochs or stage["epochs"]
    smoothing = stage.pop("label_smoothing")
    trainer = trainer_of(config.build(), found, stage, arguments.seed, smoothing)
    clock.stamp()
    trainer.run(0, Stamps(clock))
    wall = clock.now()
    right = accuracy(trainer, found, mirrored=True)
    emit(
        wall_seconds=wall,
        accuracy=right,
        epochs=stage["epochs"],
        reached=right >= settings["accuracy"],
        start_up_seconds=clock.stamps[0],
        first_step_seconds=clock.stamps[1] - clock.stamps[0],
    )


if __name__ == "__main__":
    main()
