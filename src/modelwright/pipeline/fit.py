"""Stages train and tune: from shards to checkpoints, derived where the recipe is silent.

A stage that was interrupted continues from its newest sound checkpoint with the values that
were derived when it began; so the run that is resumed is the run that was started.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from modelwright import checkpoint, runtime
from modelwright.checkpoint.layout import step_of
from modelwright.data.codecs import save_codec
from modelwright.data.shards import open_shard
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.files import rename
from modelwright.models.model import config_class, fields_for, from_dict
from modelwright.objectives import make_objective
from modelwright.pipeline.fitted import TaskName, load_parameters
from modelwright.pipeline.prepare import Say, longest, prepared_codec
from modelwright.pipeline.watch import CHECKS, StageObserver
from modelwright.recipe import Stage
from modelwright.run import Run, fingerprint, flatten
from modelwright.tasks.task import make_task
from modelwright.training import budget
from modelwright.training.examples import Examples, Shuffled, Windows, once, windows_once
from modelwright.training.optimizers import build_optimizers
from modelwright.training.train import Trainer
from modelwright.types import Codec, Columns, rows_in, take

VALIDATION_BATCHES = 8  # during training; the evaluation takes the whole split


def fit(run: Run, name: str, say: Say) -> None:
    """Train (``name`` "train") or fine-tune ("tune"), unless that is done.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, saved; the message says how to go on.
    """
    mark = _mark(run, name)
    if run.is_done(name, mark) and _ended(run, name):
        say(f"{name}: nothing changed, kept")
        return
    record = run.stage(name)
    resuming = record.get("fingerprint") == mark and record.get("resolved") is not None
    if not resuming:
        record.pop("resolved", None)
        _set_aside(run.path / "checkpoints" / name, say)
    with run.working(name, mark) as record:
        job = _Job(run, name, record["resolved"] if resuming else None, say)
        record["resolved"] = job.values
        run.save_manifest()
        try:
            job.train()
        except Interrupted as stop:
            raise Interrupted(
                f"{name}: {stop}; continue with `modelwright run {run.path}`"
            ) from stop


def _mark(run: Run, name: str) -> str:
    """What a stage depends on: the stage before it, and its part of the recipe."""
    prepared, trained = run.stage("prepare").get("content"), run.stage("train").get("fingerprint")
    before = prepared if name == "train" else (prepared, trained)
    recipe = run.recipe
    stage = recipe.stages[name].model_dump()
    return fingerprint(before, stage, recipe.model, recipe.budget, recipe.seed)


def _ended(run: Run, name: str) -> bool:
    """Whether the checkpoint of the stage's last step is there and sound."""
    last = checkpoint.newest(run.path / "checkpoints" / name)
    steps = run.stage(name)["resolved"]["steps"]
    return last is not None and step_of(last) == steps and not checkpoint.verify(last)


def _set_aside(folder: Path, say: Say) -> None:
    """Keep the checkpoints of other data apart: training must not go on from them."""
    if not folder.exists():
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}-before-{number}")).exists():
        number += 1
    rename(folder, aside)
    say(f"{folder.name}: the data have changed, training anew; {aside} keeps the earlier model")


class _Job:
    """One stage being trained."""

    def __init__(self, run: Run, name: str, resolved: dict[str, Any] | None, say: Say) -> None:
        self.run, self.name, self.say = run, name, say
        self.stage: Stage = run.recipe.stages[name]
        self.task = make_task(self.stage.task, self.stage.options)
        self.folder = run.path / "checkpoints" / name
        self.totals: dict[str, float] = {}
        self.device = runtime.device()
        self.codec = prepared_codec(run)
        self.objective = make_objective(
            self.stage.objective or self.task.objective, self.codec, self.stage.objective_options
        )
        self.values = resolved if resolved is not None else self._derive()
        torch.set_num_threads(self.values["threads"])
        torch.manual_seed(runtime.derived_seed(run.recipe.seed, name, "init"))
        self.config = from_dict(self.values["model"])
        self.model = self.config.build()
        self.train_columns = self._fitting("train")

    # What the recipe leaves open -------------------------------------------------------------

    def _derive(self) -> dict[str, Any]:
        """Derive every open value of this stage, and say why in resolved.json."""
        run, name = self.run, self.name
        machine = _machine(run)
        derived = budget.Derived()
        budget.derive_machine(run.recipe, machine, derived)
        torch.set_num_threads(derived.values[f"{name}.threads"])
        fields = self._model_fields(machine, derived)
        self.values = {"model": fields}
        self.config = from_dict(fields)
        window = int(fields.get("context", 1))
        columns = self._fitting("train")
        mean = window if self.task.stream else _mean_length(columns, self.codec)
        budget.derive_batch(run.recipe, name, mean, derived)
        budget.derive_rates(self.stage, name, self.config.optimizer, derived)
        values = {k.partition(".")[2]: v for k, v in derived.values.items() if _of(k, name)}
        self.values.update(values)
        examples = self._examples(columns)
        per_epoch = examples.total / examples.per_step
        budget.derive_steps(run.recipe, name, per_epoch, lambda: self._probe(columns), derived)
        given = {
            f"{name}.{k}": v
            for k, v in self.stage.model_dump().items()
            if f"{name}.{k}" not in derived.values and v is not None
        }
        values = {**given, **derived.values}
        _write_resolved(run, values, derived.reasons)
        stage = {k.partition(".")[2]: v for k, v in values.items() if _of(k, name)}
        timed = run.recipe.budget and self.stage.steps is None and self.stage.epochs is None
        return {"model": fields, **stage, "timed": bool(timed and self._can_replan(stage))}

    def _can_replan(self, stage: dict[str, Any]) -> bool:
        """Whether the rate is constant long enough for the number of steps to be open."""
        falls_at: float = 1 - stage["decay"]
        return stage["schedule"] == "warmup_stable_decay" and falls_at >= CHECKS[-1]

    def _model_fields(self, machine: runtime.Machine, derived: budget.Derived) -> dict[str, Any]:
        if self.name == "tune":
            fields: dict[str, Any] = self.run.stage("train")["resolved"]["model"]
            return fields
        cls = config_class(self.run.recipe.family)
        fields = budget.derive_model(self.run.recipe, machine, derived)
        return cls(**fields_for(cls, self.codec, fields)).to_dict()

    def _probe(self, columns: Columns) -> float:
        """Seconds of one training step here: the very step that will run, on a scratch model."""
        self.say(f"{self.name}: measuring a step on this machine")
        torch.manual_seed(0)
        self.model = self.config.build()
        trainer = self._trainer(self._examples(columns), steps=1_000_000)
        self.model.to(self.device).train()
        numbers = iter(range(1_000_000))
        return budget.measured_step(lambda: trainer.step(next(numbers)))

    # The parts ----------------------------------------------------------------------------

    def _fitting(self, part: str) -> Columns:
        """The examples of a split, without those longer than the model's context."""
        columns = open_shard(self.run.path / "data" / self.name / part)
        context = self.values["model"].get("context")
        lengths = longest(columns, self.codec.ragged)
        if self.task.stream or context is None or lengths is None:
            return columns
        fits = np.flatnonzero(lengths <= context + 1)
        if len(fits) == 0:
            raise ModelwrightError(
                f"{self.name}: every example of {part} is longer than model.context = {context}; "
                "raise it"
            )
        return columns if len(fits) == len(lengths) else take(columns, fits)

    def _examples(self, columns: Columns) -> Examples:
        v = self.values
        seed = runtime.derived_seed(self.run.recipe.seed, self.name, "examples")
        accumulate = self.stage.accumulate
        if self.task.stream:
            batch, length = max(1, v["batch"] // accumulate), v["model"]["context"]
            return Windows(columns, batch, length, seed=seed, accumulate=accumulate)
        return Shuffled(
            columns,
            v["batch"],
            seed=seed,
            accumulate=accumulate,
            by_length=self.codec.ragged[0] if self.codec.ragged else "",
        )

    def _trainer(self, examples: Examples, steps: int) -> Trainer:
        v = self.values
        precision = runtime.PRECISIONS[v["precision"]]
        optimizers = build_optimizers(
            self.model,
            v["optimizer"],
            learning_rate=v["learning_rate"],
            matrix_learning_rate=v["matrix_learning_rate"],
            momentum=self.stage.momentum,
            weight_decay=self.stage.weight_decay,
            precision=precision,
        )
        return Trainer(
            model=self.model,
            objective=self.objective,
            examples=examples,
            optimizers=optimizers,
            steps=steps,
            seed=runtime.derived_seed(self.run.recipe.seed, self.name),
            schedule=v["schedule"],
            warmup=v["warmup"],
            decay=v["decay"],
            clip=self.stage.clip,
            precision=precision,
            device=self.device,
        )

    def _validation(self) -> Iterator[Columns]:
        """Part of the validation split, the same at every call."""
        folder = self.run.path / "data" / self.name / "validation"
        if not folder.exists():
            return iter(())
        columns = self._fitting("validation")
        batch = max(1, self.values["batch"] // self.stage.accumulate)
        if self.task.stream:
            every = windows_once(columns, batch, self.values["model"]["context"])
        else:
            every = once(columns, batch)
        return islice(every, VALIDATION_BATCHES)

    # The work ------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the newest sound checkpoint, or from the beginning."""
        trainer = self._trainer(self._examples(self.train_columns), self.values["steps"])
        first = self._resume(trainer)
        parameters = sum(p.numel() for p in self.model.parameters())
        per_epoch = trainer.examples.total / trainer.examples.per_step
        v = self.values
        self.say(
            f"{self.name}: {self.config.family} of {parameters / 1e6:.2f}M parameters, "
            f"{v['steps']} steps of {v['batch']} examples, {v['precision']}"
            + (f", continuing after step {first}" if first else "")
        )
        observer = StageObserver(
            run=self.run,
            name=self.name,
            first=first,
            values=v,
            trainer=trainer,
            flops_per_item=self.config.flops_per_item(),
            matmul_gflops=_machine(self.run).matmul_gflops[v["precision"]],
            validation=self._validation,
            prompts=self._prompts(),
            codec=self.codec,
            epoch_steps=per_epoch if self.stage.epochs else 0.0,
            say=self.say,
            allowed=self._timed() if v.get("timed") else 0.0,
            replan=lambda step, steps: self._replan(trainer, step, steps),
            totals=self.totals,
            write=lambda step, totals: self._save(trainer, step, totals),
        )
        record = self.run.stage(self.name)
        with observer:
            if first < v["steps"]:
                trainer.run(first, observer)
        record.update(observer.summary(), parameters=parameters)

    def _timed(self) -> float:
        """Seconds for this stage, less a share for validating, sampling and saving."""
        return budget.stage_seconds(self.run.recipe, self.name) or 0.0

    def _replan(self, trainer: Trainer, step: int, steps: int) -> None:
        """Fix a new number of steps, keeping the warm-up, and record it before going on."""
        v = self.values
        per_epoch = trainer.examples.total / trainer.examples.per_step
        steps = max(step + 1, min(steps, math.ceil(budget.PASSES * per_epoch)))
        v["warmup"] = v["warmup"] * v["steps"] / steps
        v["steps"] = trainer.steps = steps
        trainer.warmup = v["warmup"]
        every = {f"{name}_every": max(1, steps // 10) for name in ("validate", "save")}
        v.update({k: n for k, n in every.items() if getattr(self.stage, k) is None})
        reason = f"planned anew at step {step}, for the time of a step until then"
        values = {f"{self.name}.{k}": v[k] for k in ("steps", "warmup", *every)}
        _write_resolved(self.run, values, {f"{self.name}.steps": reason})
        self.run.save_manifest()

    def _resume(self, trainer: Trainer) -> int:
        """Load the newest sound checkpoint of this stage, or start from the stage before."""
        found, problems = checkpoint.newest_sound(self.folder)
        for problem in problems:
            self.say(f"{self.name}: {problem}")
        if found is None:
            if self.name == "tune":
                start = checkpoint.newest(self.run.path / "checkpoints" / "train")
                if start is None:
                    raise ModelwrightError(
                        f"{self.run.path}: nothing trained to tune; run `modelwright train` first"
                    )
                load_parameters(self.model, checkpoint.load(start, groups=["model"]))
            return 0
        state = json.loads(found.documents["state.json"])
        mine, theirs = flatten(self._state(found.step)), flatten({**state, "totals": 0})
        changed = [k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k) and k != "totals"]
        if changed:
            key = changed[0].removeprefix("values.")
            raise ModelwrightError(
                f"{found.path}: was trained with {key} = {theirs.get(changed[0])}, now it would be "
                f"{mine.get(changed[0])}; start a new run with --out, or delete this folder"
            )
        load_parameters(self.model, found)
        trainer.optimizers.load_state(found.tensors["optimizer"])
        self.totals = state["totals"]
        return found.step

    def _state(self, step: int) -> dict[str, Any]:
        planned = {"steps", "warmup"} if self.values.get("timed") else set()
        exact = {
            k: v for k, v in self.values.items() if not k.endswith("_every") and k not in planned
        }
        return json.loads(  # type: ignore[no-any-return]
            json.dumps({"stage": self.name, "step": step, "values": exact})
        )

    def _save(self, trainer: Trainer, step: int, totals: dict[str, float]) -> None:
        documents = {
            "state.json": json.dumps({**self._state(step), "totals": totals}, indent=1).encode(),
            "model.json": json.dumps(self.config.to_dict(), indent=1).encode(),
            "task.json": json.dumps(asdict(TaskName.of(self.stage))).encode(),
            **save_codec(self.codec),
        }
        tensors = {"model": self.model.state_dict(), "optimizer": trainer.optimizers.state()}
        checkpoint.save(self.folder, step, tensors, documents)

    def _prompts(self) -> list[Any]:
        """What is asked while training: the recipe's question and two validation examples."""
        if not hasattr(self.model, "new_cache"):
            return []
        folder = self.run.path / "data" / self.name / "validation"
        prompts: list[Any] = []
        codec = cast(Any, self.codec)
        if folder.exists():
            columns = open_shard(folder)
            for i in range(min(2, rows_in(columns))):
                encoded = {k: c[i] for k, c in columns.items()}
                if self.task.stream:  # the first few tokens of a document, to be continued
                    encoded = {k: c[:16] for k, c in encoded.items()}
                    prompts.append(codec.example(encoded).turns)
                else:
                    prompts.append(codec.example(encoded).given)
        if self.run.recipe.ask and not self.task.stream:
            prompts.insert(0, self.task.question(self.run.recipe.ask))
        context = self.values["model"]["context"]
        return [p for p in prompts if len(codec.prompt(p)) < context]


def _machine(run: Run) -> runtime.Machine:
    """The machine's description, measured once a run."""
    if "machine" not in run.manifest:
        run.manifest["machine"] = runtime.measure_machine().to_dict()
        run.save_manifest()
    return runtime.Machine(**run.manifest["machine"])


def _mean_length(columns: Columns, codec: Codec) -> int:
    lengths = longest(columns, codec.ragged)
    return 1 if lengths is None or "tokens" not in codec.ragged else math.ceil(lengths.mean())


def _of(key: str, stage: str) -> bool:
    return key.startswith(f"{stage}.")


def _write_resolved(run: Run, values: dict[str, Any], reasons: dict[str, str]) -> None:
    """Add a stage's values to resolved.json, nested as in the recipe."""
    resolved = run.read_json("resolved.json") or {
        "recipe": run.recipe.model_dump(exclude_none=True),
        "reasons": {},
    }
    for key, value in values.items():
        section, _, name = key.partition(".")
        resolved["recipe"].setdefault(section, {})[name] = value
    resolved["reasons"].update(reasons)
    run.write_json("resolved.json", resolved)
