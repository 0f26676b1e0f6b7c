"""The dial: from a training time to a model size, a batch, rates and a number of steps.

Every value that the recipe leaves open is derived here, with the reason a person can check.
The order: precision from the machine's products, size from the FLOPs the time can buy, batch
from size and time, rates from published defaults, and last the steps, from the measured time
of the very step that will run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelwright import runtime
from modelwright.models.model import config_class
from modelwright.recipe import Recipe, Stage, count, seconds

TOKENS_PER_PARAMETER = 3.0
EXPECTED_UTILISATION = 0.30  # of the measured matrix-product speed, for small models on a CPU
TUNE_SHARE = 0.3
OPTIMIZER_REASONS = {
    "muon": "about 1.5 x fewer steps than AdamW on matrices (Jordan et al. 2024)",
    "adamw": "a safe default for every model",
}
PASSES = 4.0  # more passes over the same text teach little (arXiv:2305.16264, figure 3)


@dataclass
class Derived:
    """Values by dotted key, and why each is what it is."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, given: Any, derive: Callable[[], tuple[Any, str]]) -> Any:
        """Keep what the recipe gave, or derive it."""
        value, reason = (given, "given in the recipe") if given is not None else derive()
        self.values[key], self.reasons[key] = value, reason
        return value


def stage_seconds(recipe: Recipe, name: str) -> float | None:
    """The part of the budget that a stage may use, in seconds."""
    if recipe.budget is None:
        return None
    total = seconds(recipe.budget)
    share = 0.0
    if recipe.tune:
        share = recipe.tune.share or TUNE_SHARE
    return total * (share if name == "tune" else 1 - share)


def derive_machine(recipe: Recipe, machine: runtime.Machine, derived: Derived) -> None:
    """Precision and threads of every stage."""
    for name, stage in recipe.stages.items():
        derived.put(
            f"{name}.precision",
            stage.precision,
            lambda: (
                runtime.faster_precision(machine),
                "matrix products measured here: "
                + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in machine.matmul_gflops.items()),
            ),
        )
        derived.put(
            f"{name}.threads",
            stage.threads,
            lambda: (machine.cores, f"this process may use {machine.cores} cores"),
        )


def derive_model(recipe: Recipe, machine: runtime.Machine, derived: Derived) -> dict[str, Any]:
    """The fields of the model's shape that the recipe leaves open."""
    cls = config_class(recipe.family)
    given = {k: v for k, v in recipe.model.items() if k not in ("family", "parameters")}
    for key, value in given.items():
        derived.values[f"model.{key}"] = value
        derived.reasons[f"model.{key}"] = "given in the recipe"
    time_allowed = stage_seconds(recipe, "train")
    if "parameters" in recipe.model:
        target = count(recipe.model["parameters"])
        reason = f"nearest shape to model.parameters = {recipe.model['parameters']}"
    elif time_allowed is not None:
        speed = machine.matmul_gflops[derived.values["train.precision"]] * 1e9
        flops = EXPECTED_UTILISATION * speed * time_allowed
        target = int(math.sqrt(flops / (6 * TOKENS_PER_PARAMETER)))
        reason = (
            f"{flops:.1e} FLOPs fit in {time_allowed:.0f} s at {EXPECTED_UTILISATION:.0%} of the "
            f"measured products; C = 6 N D with D = {TOKENS_PER_PARAMETER:g} N gives "
            f"N = {target / 1e6:.2g}M in the matrices (form of arXiv:2203.15556)"
        )
    else:
        return given
    for key, value in cls.of_size(target, given).items():
        if key not in given:
            derived.values[f"model.{key}"], derived.reasons[f"model.{key}"] = value, reason
            given[key], reason = value, f"goes with model.{key}"
    return given


def derive_batch(recipe: Recipe, name: str, window: int, derived: Derived) -> int:
    """Examples (or windows of ``window`` tokens) a step."""
    stage = recipe.stages[name]
    time_allowed = stage_seconds(recipe, name) or 0.0

    def rule() -> tuple[int, str]:
        if window <= 1:
            return 64, "customary for small models"
        # The useful batch grows with the length of the run; doubling it for each fourfold time
        # keeps hundreds of updates in a short run and the noise small in a long one.
        tokens = 4096 * 2 ** max(0, round(math.log(max(time_allowed, 1) / 150, 4)))
        return max(1, tokens // window), (
            f"{tokens} tokens a step: small enough for hundreds of updates in "
            f"{time_allowed:.0f} s, doubled for every fourfold budget"
        )

    batch = int(derived.put(f"{name}.batch", stage.batch, rule))
    if batch % stage.accumulate:
        batch = math.ceil(batch / stage.accumulate) * stage.accumulate
        derived.values[f"{name}.batch"] = batch
    return batch


def derive_rates(stage: Stage, name: str, preferred: str, derived: Derived) -> None:
    """Optimiser, learning rates and schedule; ``preferred`` is the model family's optimiser."""
    optimizer = derived.put(
        f"{name}.optimizer",
        stage.optimizer,
        lambda: (preferred, OPTIMIZER_REASONS[preferred]),
    )
    tuning = name == "tune"  # what was learned shall be bent, not overwritten
    said = ", halved when tuning" if tuning else ""
    rate = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "muon": 4e-3}[optimizer]
    derived.put(
        f"{name}.learning_rate",
        stage.learning_rate,
        lambda: (rate / 2 if tuning else rate, f"default of {optimizer}{said}"),
    )
    derived.put(
        f"{name}.matrix_learning_rate",
        stage.matrix_learning_rate,
        lambda: (0.01 if tuning else 0.02, f"default of Muon{said}"),
    )
    derived.put(
        f"{name}.schedule",
        stage.schedule,
        lambda: ("warmup_stable_decay", "ends low at any length (arXiv:2404.06395)"),
    )
    derived.put(f"{name}.warmup", stage.warmup, lambda: (0.02, "a short start for the averages"))
    derived.put(
        f"{name}.decay",
        stage.decay,
        lambda: (0.6, "short runs gain from a long decay (half or more of the run)"),
    )


def measured_step(step: Callable[[], object], least: float = 3.0) -> float:
    """Seconds of ``step`` over at least ``least`` seconds, after a warm-up call.

    The first quartile: other programs only ever slow a step down, and usually pass.
    """
    step()
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < least or len(times) < 3:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 4]


def derive_steps(
    recipe: Recipe,
    name: str,
    per_epoch: float,
    seconds_per_step: Callable[[], float],
    derived: Derived,
) -> int:
    """The number of updates, from steps, epochs or the budget."""
    stage = recipe.stages[name]

    def rule() -> tuple[int, str]:
        if stage.epochs is not None:
            steps = max(1, math.ceil(stage.epochs * per_epoch))
            return steps, f"{stage.epochs:g} epochs of {per_epoch:.4g} steps"
        allowed = stage_seconds(recipe, name)
        if allowed is None:
            steps = max(1, math.ceil(per_epoch))
            return steps, "one pass over the data (no steps, epochs or budget given)"
        each = seconds_per_step()
        timed = max(1, int(allowed / each))
        cap = max(1, math.ceil(PASSES * per_epoch))
        if timed > cap:
            return cap, (
                f"{PASSES:g} passes over the data; {timed} steps of {each * 1000:.0f} ms "
                f"would fit in {allowed:.0f} s, but more passes teach little (arXiv:2305.16264)"
            )
        return timed, (
            f"{allowed:.0f} s at {each * 1000:.0f} ms a step measured here: "
            f"{timed / per_epoch:.2g} passes over the data"
        )

    steps = int(derived.put(f"{name}.steps", stage.steps, rule))
    tenth = max(1, steps // 10)
    derived.put(f"{name}.validate_every", stage.validate_every, lambda: (tenth, "ten times a run"))
    derived.put(f"{name}.save_every", stage.save_every, lambda: (tenth, "ten times a run"))
    derived.put(f"{name}.sample_every", stage.sample_every, lambda: (2 * tenth, "five times a run"))
    return steps
