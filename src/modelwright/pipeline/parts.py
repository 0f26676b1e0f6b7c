"""What a stage is made of: task, codec, columns, examples, model, optimisers, loop."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from modelwright import runtime
from modelwright.data.augment.batches import Augment
from modelwright.data.augment.sizes import Sizes
from modelwright.data.shards import open_shard
from modelwright.errors import MachineError, ModelwrightError
from modelwright.extensions import short
from modelwright.models.lora import Adapter
from modelwright.models.model import ModelConfig, from_dict
from modelwright.objectives import beside, make_objective
from modelwright.pipeline import adapters, references, teachers
from modelwright.pipeline.adapters import Adapted
from modelwright.pipeline.answering import Sampler, answerer
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say, longest, prepared_codec
from modelwright.recipe import Stage
from modelwright.runs import Run
from modelwright.tasks.task import make_task
from modelwright.training.compiled import WholeStep, compile_regions, no_compiler
from modelwright.training.examples import (
    Augmented,
    Examples,
    Packed,
    Shuffled,
    Windows,
    once,
    windows_once,
)
from modelwright.training.guard import Guard
from modelwright.training.optimizers import Optimizers, build_optimizers
from modelwright.training.parallel import SERIAL, Placed, World, place
from modelwright.training.train import Trainer
from modelwright.training.tuning import Freezing, quiet_norms, rates
from modelwright.training.watchdog import Watchdog
from modelwright.types import Array, Columns, take

VALIDATION_BATCHES = 8  # during training; the evaluation takes the whole split


class Parts:
    """The parts of one stage of a run, made from its data and its ``values``.

    ``values`` are the resolved fields of the stage, and ``model``: the fields of the model.
    """

    config: ModelConfig
    model: nn.Module

    def __init__(self, run: Run, name: str, say: Say) -> None:
        self.run, self.name, self.say = run, name, say
        self.world: World = SERIAL
        self.held: Placed | None = None
        self.stage: Stage = run.recipe.stages[name]
        self.task = make_task(self.stage.task, self.stage.options)
        self.numbers: Array | None = None  # of the rows that fit the context, where not all do
        self.left_out: set[str] = set()  # parts of which examples are too long, once said
        self.device = runtime.device()
        self.codec = prepared_codec(run)
        self.task.knows(self.codec)
        self.objective = make_objective(
            self.stage.objective or self.task.objective, self.codec, self.stage.objective_options
        )
        teachers.teach(run, name, self.objective, self.codec, self.device)
        self.values: dict[str, Any] = {}
        self.adapted: Adapted | None = None
        self.freezing: Freezing | None = None

    def build(self, *seed: object) -> None:
        """The model with fresh parameters, drawn from a seed of these parts."""
        self.config = from_dict(self.values["model"])
        self.model = self.fresh(*seed)
        stage, world = self.stage, self.world
        self.freezing = None
        if stage.freeze:
            if stage.unfreeze and not world.alone:
                raise ModelwrightError(f"{self.name}.unfreeze: for one process; leave it out")
            self.freezing = Freezing(self.model, stage.freeze, stage.unfreeze)

    def fresh(self, *seed: object) -> nn.Module:
        """A model with fresh parameters; with adapters, those of its base."""
        torch.manual_seed(runtime.derived_seed(self.run.recipe.seed, self.name, *seed))
        model = self.config.build()
        if (given := self.stage.adapter) is not None:
            adapter = Adapter(**given.model_dump())
            base = adapters.base_of(self.run, self.name)
            self.adapted = adapters.adapted(model, self.config, adapter, base, self.run.path)
            quiet_norms(model)
        return model

    @property
    def context(self) -> int | None:
        """The longest text, without what learned prompts take of it; None where none is known."""
        found: int | None = self.values["model"].get("context")
        given = self.stage.adapter
        return found if found is None or given is None else found - given.prompt - given.prefix

    def fitting(self, part: str) -> Columns:
        """The examples of a split, without those longer than the model's context."""
        columns = open_shard(self.run.path / "data" / self.name / part)
        context = self.context
        lengths = longest(columns, self.codec.ragged)
        windows = getattr(self.codec, "any_length", False)
        if self.task.stream or windows or context is None or lengths is None:
            return columns
        fits = np.flatnonzero(lengths <= context + 1)
        self.numbers = fits if part == "train" else self.numbers
        if len(fits) == 0:
            raise ModelwrightError(
                f"{self.name}: every example of {part} is longer than model.context = {context}; "
                "raise it"
            )
        if (left := len(lengths) - len(fits)) == 0:
            return columns
        if part not in self.left_out:
            self.left_out.add(part)
            self.say(
                f"{self.name}: {left:,} of {len(lengths):,} examples of {part} are longer than "
                f"model.context = {context} and are left out; raise it, or stretch it"
            )
        return take(columns, fits)

    def referred(self, part: str) -> Columns:
        """The examples of ``fitting``, where that is asked with what a reference makes of them."""
        if not references.refers(self.objective):
            return self.fitting(part)
        place = self.run.path / "checkpoints" / self.name
        here = Fitted(self.model, self.config, self.codec, self.task, self.objective, place, 0)
        return references.referred(
            self.run,
            self.name,
            part,
            self.fitting(part),
            here,
            say=self.say,
            precision=runtime.PRECISIONS[self.values["precision"]],
        )

    def examples(self, columns: Columns) -> Examples:
        """The micro-batches of every step: windows of a stream, or shuffled rows."""
        v = self.values
        seed = runtime.derived_seed(self.run.recipe.seed, self.name, "examples")
        accumulate, packs = v["accumulate"], self.objective.packs
        if self.task.stream:
            batch, length = max(1, v["batch"] // accumulate), self.context or 0
            return Windows(columns, batch, length, seed=seed, accumulate=accumulate)
        shuffled = Shuffled(
            columns,
            v["batch"],
            seed=seed,
            accumulate=accumulate,
            by_length=self.codec.ragged[0] if self.codec.ragged and not packs else "",
            numbers=self.numbers,
            times=np.asarray(columns["times"]) if "times" in columns else None,
        )
        lines = self.stage.augment
        kind = self.run.recipe.codec_kind
        augment = Augment(lines, kind, seed, self.codec) if lines else None
        if self.stage.pack:
            one = "tokens" in self.codec.ragged and not getattr(self.codec, "any_length", False)
            if not (packs and one) or lines:
                raise ModelwrightError(
                    f"{self.name}.pack: for tasks of text whose documents stand one after another, "
                    "without augment; leave it out"
                )
            return Packed(shuffled, self.stage.pack, v["batch"], accumulate=accumulate)
        found = Augmented(shuffled, augment) if augment else shuffled
        if self.stage.sizes:
            found = Augmented(found, Sizes(self.stage.sizes))
        if not hasattr(self.objective, "beside"):
            return found
        return Augmented(found, lambda rows, _: beside(self.objective, rows))

    def optimizers(self) -> Optimizers:
        """New optimisers of the model as the processes hold it."""
        v = self.values
        held = self.placed()
        if self.freezing is not None:
            self.freezing.ever()
        times = self.stage.adapter.lora_plus if self.stage.adapter else 1.0
        return build_optimizers(
            held.optimizable,
            v["optimizer"],
            learning_rate=v["learning_rate"],
            matrix_learning_rate=v["matrix_learning_rate"],
            momentum=self.stage.momentum,
            weight_decay=self.stage.weight_decay,
            precision=runtime.PRECISIONS[v["precision"]],
            momentum_warmup=self.stage.momentum_warmup,
            ema=self.stage.ema or 0.0,
            placement=held,
            rates=rates(self.model, lora_plus=times, layer_decay=self.stage.layer_decay),
        )

    def placed(self) -> Placed:
        """The model as the processes hold it, made once."""
        if self.held is None or self.held.model is not self.model:
            self.model.to(self.device)  # first: an optimiser's state lies where its parameters are
            if self.values.get("recompute"):
                if not hasattr(self.model, "recompute"):
                    raise ModelwrightError(
                        f"{self.name}.recompute: a {self.config.family} does not compute its "
                        "activations again; leave the field out"
                    )
                setattr(self.model, "recompute", True)  # noqa: B010 - not every module has it
            if self.values["compile"] and (why := no_compiler(self.device)):
                raise MachineError(
                    f"{self.name}.compile: {why}; leave the field out, or set it to false"
                )
            learned = hasattr(self.model, "virtual")  # whose tokens vary from call to call
            if self.values["compile"] and self.config.compiles and not learned:
                compile_regions(self.model, lengths_vary=not self.task.stream)
            self.held = place(
                self.model,
                self.objective,
                self.world,
                shard=self.run.recipe.parallel.shard,
                precision=runtime.PRECISIONS[self.values["precision"]],
            )
            self.held.kept = self.adapted.names if self.adapted is not None else None
        return self.held

    def make_trainer(self, examples: Examples, steps: int) -> Trainer:
        """The loop over ``examples``, with new optimisers.

        Raises:
            ModelwrightError: the family reads what the objective does not give.
        """
        v = self.values
        self._check_inputs(examples)
        return Trainer(
            model=self.model,
            objective=self.objective,
            examples=examples,
            optimizers=self.optimizers(),
            steps=steps,
            seed=runtime.derived_seed(self.run.recipe.seed, self.name),
            schedule=v["schedule"],
            warmup=v["warmup"],
            decay=v["decay"],
            clip=self.stage.clip,
            precision=runtime.PRECISIONS[v["precision"]],
            device=self.device,
            guard=Guard(self.stage.on_nan, self.stage.on_spike),
            watchdog=Watchdog(self.stage.watchdog, self.run.path, self.world.rank),
            world=self.world,
            placed=self.placed(),
            whole=self._whole() if v["compile"] and self.world.alone else None,
            freezing=self.freezing,
        )

    def _check_inputs(self, examples: Examples) -> None:
        """Whether a batch has all that the model's ``forward`` asks for."""
        batch = self.objective.collate(examples(0)[0], torch.Generator())
        known = inspect.signature(self.model.forward).parameters.values()
        asked = [p.name for p in known if p.default is p.empty]
        if missing := [name for name in asked if name not in batch.inputs]:
            raise ModelwrightError(
                f"model.family: a {short(self.config.family)} reads {' and '.join(asked)}, and the"
                f" task {short(self.stage.task)} gives no {missing[0]}; leave model.family out to"
                " take the task's own"
            )

    @property
    def one_shape(self) -> bool:
        """Whether all steps of the stage are alike: one batch, of one shape, of all parameters."""
        varies = self.task.stream or self.codec.ragged or self.values["accumulate"] > 1
        taught = getattr(self.objective, "teaching", None) is not None
        return not (varies or taught or self.stage.adapter or self.stage.freeze)

    def _whole(self) -> WholeStep | None:
        """The gradients of a step as one function, of models that have no parts to compile."""
        precision = runtime.PRECISIONS[self.values["precision"]]
        if self.config.compiles or self.config.opaque:
            return None
        if not self.one_shape or precision == torch.float16:
            return None  # the scale of float16's loss is the loop's matter
        return WholeStep(self.model, self.objective, self.stage.clip, precision)

    def validation(self) -> Iterator[Columns]:
        """Part of the validation split, the same at every call."""
        folder = self.run.path / "data" / self.name / "validation"
        if not folder.exists():
            return iter(())
        columns = self.referred("validation")
        batch = max(1, self.values["batch"] // self.values["accumulate"])
        if self.task.stream:
            every = windows_once(columns, batch, self.context or 0)
        elif hasattr(self.objective, "beside"):  # as many beside each other as in training
            steps = once(columns, self.values["batch"])
            every = (beside(self.objective, rows) for rows in steps)
        else:
            every = once(columns, batch)
        return islice(every, VALIDATION_BATCHES)

    def sampler(self) -> Sampler | None:
        """What keeps samples of a model at a step, where there is something to show."""
        answers = answerer(self.model, self.codec, self.objective, self.task)
        return answers.sampler(self.run, self.name)
