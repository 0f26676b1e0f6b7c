"""What a stage's recipe leaves open, derived before it begins, each value with its reason."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from modelwright import runtime
from modelwright.errors import ModelwrightError
from modelwright.hub.files import is_keras
from modelwright.kernels import elementwise
from modelwright.models.model import config_class, fields_for, from_dict
from modelwright.pipeline.memory import derive_memory
from modelwright.pipeline.parts import Parts
from modelwright.pipeline.prepare import longest
from modelwright.pipeline.published import published_of, start_config
from modelwright.pipeline.watch import CHECKS
from modelwright.runs import Run
from modelwright.training import budget, thread_count
from modelwright.training.compiled import can_compile
from modelwright.types import Codec, Columns


def derive(parts: Parts) -> dict[str, Any]:
    """Every value of a stage; they also go to resolved.json, with the reasons.

    The order matters: each value may depend on those before it, and the steps on the time of the
    very step that will run, which is measured on a scratch model.
    """
    run, name, stage = parts.run, parts.name, parts.stage
    machine = machine_of(run)
    derived = budget.Derived()
    budget.derive_machine(run.recipe, machine, derived)
    torch.set_num_threads(derived.values[f"{name}.threads"])
    fields = _model_fields(parts, machine, derived)
    parts.values = {"model": fields}
    parts.config = from_dict(fields)
    window = int(fields.get("context", 1))
    columns = parts.fitting("train")
    mean = window if parts.task.stream else _mean_length(columns, parts.codec)
    mean = stage.pack or mean
    budget.derive_batch(run.recipe, name, mean, derived)
    begins = run.recipe.published is not None and name == next(iter(run.recipe.stages))
    begins = begins and not is_keras(str(run.recipe.published))  # which may well be untrained
    budget.derive_rates(stage, name, parts.config.optimizer, derived, published=begins)
    parts.values.update(_of(derived.values, name))
    parts.values.update(
        derive_memory(
            stage,
            name,
            parts.config,
            length=mean,
            flops=derived.values[f"{name}.batch"] * mean * parts.config.flops_per_item(1.0, mean),
            free=runtime.free_memory_bytes(),
            derived=derived,
        )
    )
    examples = parts.examples(columns)
    per_epoch = examples.total / examples.per_step
    computed = float(examples.per_step * mean)
    cost = budget.Cost(computed, computed * parts.config.flops_per_item(1.0, mean))
    step = {"per_epoch": per_epoch, "flops": cost.flops}
    quick = _derive_threads(parts, machine, columns, **step, derived=derived)
    _derive_compile(parts, machine, **step, quick=quick, derived=derived)
    probe = functools.partial(_step_seconds, parts, columns)
    most = budget.most_passes(stage, parts.objective, parts.codec)
    budget.derive_steps(run.recipe, name, per_epoch, probe, derived, cost=cost, most=most)
    given = {
        f"{name}.{k}": v
        for k, v in stage.model_dump(exclude_none=True).items()
        if f"{name}.{k}" not in derived.values
    }
    values = {**given, **derived.values}
    write_resolved(run, values, derived.reasons)
    found = _of(values, name)
    timed = budget.stage_seconds(run.recipe, name) is not None
    timed = timed and stage.steps is None
    if timed and not _can_replan(found):
        parts.say(
            f"{name}: the steps are those of the first seconds' speed: they are planned anew with"
            f" the schedule warmup_stable_decay and a warm-up of at most {CHECKS[0]:g} alone"
        )
    return {"model": fields, **found, "timed": bool(timed and _can_replan(found))}


def _model_fields(
    parts: Parts, machine: runtime.Machine, derived: budget.Derived
) -> dict[str, Any]:
    fields, stage = _fields_before(parts, machine, derived), parts.stage
    if stage.context is None:
        return fields
    if parts.name == "train" and parts.run.recipe.published is None:
        raise ModelwrightError(
            "train.context: random weights have no context to stretch; write model.context"
        )
    try:
        return {**fields, **from_dict(fields).stretched(stage.context, stage.rope or "yarn")}
    except ModelwrightError as error:
        raise ModelwrightError(f"{parts.name}.{error}") from error


def _fields_before(
    parts: Parts, machine: runtime.Machine, derived: budget.Derived
) -> dict[str, Any]:
    """The fields of the model that the stage begins with."""
    if parts.name == "tune" and parts.run.recipe.train is not None:
        fields: dict[str, Any] = parts.run.stage("train")["resolved"]["model"]
        return fields
    if (found := published_of(parts.run)) is not None:
        fields = start_config(parts.run.recipe, found, parts.codec).to_dict()
        for key, value in fields.items():
            derived.values[f"model.{key}"] = value
            derived.reasons[f"model.{key}"] = f"of {found.source}"
        return fields
    cls = config_class(parts.run.recipe.family)
    fields = budget.derive_model(parts.run.recipe, machine, derived)
    return cls(**fields_for(cls, parts.codec, fields)).to_dict()


def _derive_threads(
    parts: Parts,
    machine: runtime.Machine,
    columns: Columns,
    *,
    per_epoch: float,
    flops: float,
    derived: budget.Derived,
) -> float:
    """Threads, and steps a line of the log: measured where steps are many and quick.

    Returns:
        Seconds of a step, 0 where that was not measured.
    """
    name, stage, seconds = parts.name, parts.stage, 0.0
    each = flops / (machine.matmul_gflops[parts.values["precision"]] * 1e9)
    each /= budget.EXPECTED_UTILISATION
    steps = _steps_at(parts, each, per_epoch)
    every = (1, "every step")
    if steps > thread_count.LONG and each < thread_count.QUICK:
        parts.values["compile"] = False  # code is compiled for a number of threads
        tried = [stage.threads] if stage.threads else thread_count.candidates(machine.cores)
        found = thread_count.measured(_scratch_step(parts, columns), tried)
        threads, reason = thread_count.chosen(found)
        if not stage.threads:
            derived.values[f"{name}.threads"], derived.reasons[f"{name}.threads"] = threads, reason
            parts.values["threads"] = threads
            torch.set_num_threads(threads)
        seconds = found[threads]
        every = thread_count.line_every(seconds)
    derived.put(f"{name}.log_every", stage.log_every, lambda: every)
    return seconds


def _derive_compile(
    parts: Parts,
    machine: runtime.Machine,
    *,
    flops: float,
    per_epoch: float,
    quick: float,
    derived: budget.Derived,
) -> None:
    """Whether the model is compiled: asked before a step is measured, which depends on it.

    ``flops`` are those of a step, ``quick`` its seconds where they were measured.
    """
    stage, values = parts.stage, parts.values
    speed = machine.matmul_gflops[values["precision"]] * 1e9 * budget.EXPECTED_UTILISATION
    each = quick or flops / speed
    budget.derive_compile(
        stage,
        parts.name,
        able=(parts.config.compiles or (parts.one_shape and not parts.config.opaque))
        and can_compile(parts.device),
        whole=not parts.config.compiles,
        fused=parts.config.fused if parts.device.type == "cpu" and elementwise.available() else 0.0,
        seconds_left=_steps_at(parts, each, per_epoch) * each,
        derived=derived,
    )
    values["compile"] = derived.values[f"{parts.name}.compile"]


def _steps_at(parts: Parts, each: float, per_epoch: float) -> float:
    """About how many steps there will be, if one takes ``each`` seconds."""
    stage = parts.stage
    if stage.steps is not None:
        return stage.steps
    allowed = budget.stage_seconds(parts.run.recipe, parts.name)
    if allowed is None:
        return (stage.epochs or 1) * per_epoch
    return min(allowed / each, (stage.epochs or math.inf) * per_epoch)


def _can_replan(values: dict[str, Any]) -> bool:
    """Whether the schedule lets the number of steps be open: its warm-up ends before a check."""
    ready: bool = values["warmup"] <= CHECKS[0]
    return values["schedule"] == "warmup_stable_decay" and ready


def _step_seconds(parts: Parts, columns: Columns) -> float:
    """Seconds of one training step here: the very step that will run, on a scratch model."""
    parts.say(f"{parts.name}: measuring a step on this machine")
    return budget.measured_step(_scratch_step(parts, columns))


def _scratch_step(parts: Parts, columns: Columns) -> Callable[[], object]:
    """A training step of a model that is thrown away."""
    parts.build("probe")
    trainer = parts.make_trainer(parts.examples(columns), steps=1_000_000)
    parts.model.to(parts.device).train()
    numbers = iter(range(1_000_000))
    return lambda: trainer.step(next(numbers))


def machine_of(run: Run) -> runtime.Machine:
    """The machine's description, measured once a run."""
    if "machine" not in run.manifest:
        run.manifest["machine"] = runtime.measure_machine().to_dict()
        run.save_manifest()
    return runtime.Machine(**run.manifest["machine"])


def write_resolved(run: Run, values: dict[str, Any], reasons: dict[str, str]) -> None:
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


def _mean_length(columns: Columns, codec: Codec) -> int:
    lengths = longest(columns, codec.ragged)
    return 1 if lengths is None or "tokens" not in codec.ragged else math.ceil(lengths.mean())


def _of(values: dict[str, Any], stage: str) -> dict[str, Any]:
    """The values of a stage, without its name before each."""
    return {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{stage}.")}
