"""Trainings of a few steps on data made from a task's specimen row, for the laws of the loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from modelwright import runtime
from modelwright.data.codecs import fit_codec
from modelwright.errors import ModelwrightError
from modelwright.models.model import config_class, fields_for
from modelwright.objectives import beside, make_objective
from modelwright.recipe import Recipe, Stage
from modelwright.tasks.task import make_task, task_class
from modelwright.training.examples import Augmented, Examples, Shuffled, Windows
from modelwright.training.optimizers import build_optimizers
from modelwright.training.parallel import SERIAL, World, place
from modelwright.training.train import Trainer
from modelwright.types import Codec, Columns, Example, Image, Objective, Part, stack
from tests.variations import varied

ROWS = 12
CONTEXT = 8

# The values that a recipe's closed choices may take, such as SETTINGS["schedule"].
SETTINGS = {
    name: get_args(get_args(field.annotation)[0])
    for name, field in Stage.model_fields.items()
    if name in ("optimizer", "schedule", "precision")
}

States = list[tuple[float, dict[str, bytes]]]  # after every step: its loss, and the parameters


@dataclass(frozen=True)
class Setting:
    """What defines one small training; ``trainer()`` makes it anew, always the same."""

    task: str
    options: dict[str, Any] = field(default_factory=dict)
    objective_name: str = ""
    objective_options: dict[str, Any] = field(default_factory=dict)
    family: str = ""
    model_fields: dict[str, Any] = field(default_factory=dict)
    steps: int = 6
    batch: int = 4
    accumulate: int = 1
    optimizer: str = "adamw"
    ema: float = 0.0
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: str = "warmup_stable_decay"
    warmup: float = 0.3
    decay: float = 0.3
    clip: float = 1.0
    precision: str = "float32"

    def data(self) -> tuple[Codec, Columns]:
        """The codec and the encoded examples."""
        kind = task_class(self.task)
        try:
            found = make_task(self.task, self.options).examples(kind.specimen)
        except ModelwrightError as error:  # a column that the specimen has by another name
            found = str(error)
        if isinstance(found, str):  # the options leave the specimen out: then as it is
            found = make_task(self.task, {}).examples(kind.specimen)
        first = next(iter(found))
        if self.family and "image" in config_class(self.family).specimen:
            first = large_enough(first)
        examples = [varied(first, i) for i in range(ROWS)]
        codec = fit_codec(kind.codec, examples, {})
        return codec, stack([codec.encode(e) for e in examples], codec.ragged)

    def objective(self, codec: Codec) -> Objective:
        name = self.objective_name or task_class(self.task).objective
        return make_objective(name, codec, self.objective_options)

    def examples(self, columns: Columns, codec: Codec) -> Examples:
        if task_class(self.task).stream:
            return Windows(columns, self.batch, CONTEXT, seed=5, accumulate=self.accumulate)
        ragged = codec.ragged[0] if codec.ragged else ""
        found = Shuffled(columns, self.batch, seed=5, accumulate=self.accumulate, by_length=ragged)
        objective = self.objective(codec)
        if not hasattr(objective, "beside"):
            return found
        return Augmented(found, lambda rows, _: beside(objective, rows))

    def trainer(self, world: World = SERIAL, shard: str = "none") -> Trainer:
        codec, columns = self.data()
        cls = config_class(self.family or task_class(self.task).model)
        torch.manual_seed(11)
        model = cls(**fields_for(cls, codec, self.shape(cls, codec))).build()
        precision = runtime.PRECISIONS[self.precision]
        objective = self.objective(codec)
        placed = place(model, objective, world, shard=shard, precision=precision)
        return Trainer(
            model=model,
            objective=objective,
            examples=self.examples(columns, codec),
            optimizers=build_optimizers(
                placed.optimizable,
                self.optimizer,
                learning_rate=self.learning_rate,
                matrix_learning_rate=0.02,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                precision=precision,
                placement=placed,
                ema=self.ema,
            ),
            steps=self.steps,
            seed=13,
            schedule=self.schedule,
            warmup=self.warmup,
            decay=self.decay,
            clip=self.clip,
            precision=precision,
            world=world,
            placed=placed,
        )

    def shape(self, cls: Any, codec: Any) -> dict[str, Any]:
        """A tiny member of the family; its sizes of data are left to the data."""
        decided = cls.data_fields(codec)
        tiny = {k: v for k, v in cls.specimen.items() if k not in decided}
        return {**tiny, **self.model_fields}

    def go(self, trainer: Trainer, first: int, last: int) -> States:
        """Train steps first .. last - 1; the loss and the parameters after each."""
        trainer.model.train()
        states: States = []
        for step in range(first, last):
            loss = trainer.step(step).loss
            states.append((loss, {n: raw(t) for n, t in trainer.model.state_dict().items()}))
        return states

    def trained(self, first: int, last: int) -> States:
        return self.go(self.trainer(), first, last)


def raw(tensor: torch.Tensor) -> bytes:
    """Every bit of a tensor."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def setting_of(recipe: Recipe, name: str) -> Setting:
    """The setting of a recipe's stage, with a tiny model."""
    stage = recipe.stages[name]
    given = {
        k: getattr(stage, k)
        for k in ("optimizer", "learning_rate", "schedule", "warmup", "decay", "precision")
        if getattr(stage, k) is not None
    }
    small = {k: v for k, v in recipe.model.items() if k in ("activation", "feed_forward", "tied")}
    return Setting(
        task=stage.task,
        options=stage.options,
        objective_name=stage.objective or "",
        objective_options=stage.objective_options,
        family=recipe.family,
        model_fields=small,
        momentum=stage.momentum,
        weight_decay=stage.weight_decay,
        clip=stage.clip,
        **given,
    )


def skip_without_matrices(setting: Setting) -> None:
    """Muon is for matrices: a model of convolutions alone is refused, and not trained."""
    try:
        setting.trainer()
    except ModelwrightError as error:
        if "needs a model with matrices" not in str(error):
            raise
        pytest.skip(str(error))


def large_enough(example: Example) -> Example:
    """The example with its picture repeated to 8 x 8: convolutions halve it a few times."""

    def larger(part: Part) -> Part:
        small = isinstance(part, Image) and max(part.pixels.shape[:2]) < 8
        return Image(np.resize(part.pixels, (8, 8))) if small else part

    turns = (replace(turn, parts=tuple(map(larger, turn.parts))) for turn in example.turns)
    return replace(example, turns=tuple(turns))
