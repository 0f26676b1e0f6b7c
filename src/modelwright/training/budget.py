"""The dial: from a budget to a model size, a batch, rates and a number of steps.

A budget is a time, a number of tokens or a number of FLOPs. Every value that the recipe leaves
open is derived here, with the reason a person can check. The order: precision from the machine's
products, size from the FLOPs that the budget buys and the fitted law of loss, batch, rates from
published defaults, and last the steps: from the measured time of the very step that will run, or
from the tokens or FLOPs of a step.

A time counts everything of a stage on its way to the last checkpoint: measuring a step, building
the model, compiling, training, validating, sampling and saving. It does not count what comes
before the stage (starting Python, preparing data) or after it (evaluation, the report).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelwright import runtime
from modelwright.errors import ModelwrightError
from modelwright.models.model import config_class
from modelwright.options import amount, count
from modelwright.recipe import Recipe, Stage
from modelwright.training.scaling import OURS
from modelwright.types import Codec, Objective

VOCABULARY = 4096  # of the text codec, where the recipe names none
CONTEXT = 256  # of the decoder, where the recipe names none
EXPECTED_UTILISATION = 0.30  # of the measured matrix-product speed, for small models on a CPU
TUNE_SHARE = 0.3
OPTIMIZER_REASONS = {
    "muon": "about 1.5 x fewer steps than AdamW on matrices (Jordan et al. 2024)",
    "adamw": "a safe default for every model",
}
RATES = {
    "sgd": 0.01,
    "adam": 1e-3,
    "adamw": 1e-3,
    "muon": 4e-3,
    "adafactor": 1e-3,
    "lion": 2e-4,
    "schedule_free": 3e-3,
}
# Of a stage that begins with published weights.
PUBLISHED_OPTIMIZER = ("adamw", "what published weights were trained with")
PUBLISHED_RATE = (5e-5, "customary for published weights (arXiv:1810.04805, appendix A.3)")
# Adapters begin at B = 0 and move W by a product of two small matrices.
ADAPTER_OPTIMIZER = ("adamw", "what adapters are trained with (arXiv:2106.09685, appendix D)")
ADAPTER_TIMES = 10
PROMPT_RATE = (0.03, "of learned prompts: few numbers, each far from where it is to be")
# Schedule, warm-up and decay with the reason of each, where the customary ones do not suit.
SCHEDULE = ("warmup_stable_decay", "ends low at any length (arXiv:2404.06395)")
WARMUP = (0.02, "a short start for the averages")
DECAY = (0.6, "short runs gain from a long decay (half or more of the run)")

# Blocks of the decoder on four cores, cold; with a warm cache it is a few seconds.
COMPILE_SECONDS = 15.0
COMPILED_GAIN = {"bfloat16": 1.3, "float32": 1.1}
WHOLE_GAIN = 1.12  # of the perceptron of MNIST with batches of 64 on one core
PASSES = 4.0  # more passes over the same text teach little (arXiv:2305.16264, figure 3)
PASSES_OF_ROWS = 30.0  # over rows that are no text, and the same every time: known by heart then


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


@dataclass(frozen=True)
class Cost:
    """What one step takes: ``tokens`` positions computed, ``flops`` FLOPs."""

    tokens: float
    flops: float


def stage_amount(recipe: Recipe, name: str) -> tuple[str, float] | None:
    """The part of the budget that a stage may use, as ("seconds" | "tokens" | "flops", number)."""
    if recipe.budget is None:
        return None
    kind, total = amount(recipe.budget)
    share = 0.0
    if recipe.tune:
        share = 1.0 if recipe.train is None else recipe.tune.share or TUNE_SHARE
    return kind, total * (share if name == "tune" else 1 - share)


def stage_seconds(recipe: Recipe, name: str) -> float | None:
    """The part of the budget that a stage may use, in seconds; None where it is no time."""
    allowed = stage_amount(recipe, name)
    return allowed[1] if allowed and allowed[0] == "seconds" else None


def compile_pays(gain: float, compile_seconds: float, seconds_left: float) -> bool:
    """Whether compiling leaves more steps in ``seconds_left`` than going on without.

    ``gain`` is the speed with over that without, ``compile_seconds`` what it takes first. With it
    (left - compile) * gain steps are done where left would be; at least 2 % more are asked for,
    less than that is within what a measurement of ``gain`` is wrong by.
    """
    return (seconds_left - compile_seconds) * gain >= 1.02 * seconds_left


def derive_machine(recipe: Recipe, machine: runtime.Machine, derived: Derived) -> None:
    """Precision and threads of every stage."""
    for name, stage in recipe.stages.items():
        if stage.precision and stage.precision not in machine.matmul_gflops:
            raise ModelwrightError(
                f"{name}.precision: this machine ({machine.device}) does not compute in"
                f" {stage.precision}: leave the field out, or give one of"
                f" {', '.join(machine.matmul_gflops)}"
            )
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
    allowed = stage_amount(recipe, "train")
    if "parameters" in recipe.model:
        target = count(recipe.model["parameters"])
        reason = f"nearest shape to model.parameters = {recipe.model['parameters']}"
    elif allowed is not None and "size" not in given and cls.of_size(1_000_000, given):
        speed = machine.matmul_gflops[derived.values["train.precision"]]
        target, reason = _best_size(recipe, given, *allowed, speed)
    else:
        return given
    for key, value in cls.of_size(target, given).items():
        if key not in given:
            derived.values[f"model.{key}"], derived.reasons[f"model.{key}"] = value, reason
            given[key], reason = value, f"goes with model.{key}"
    return given


def _best_size(
    recipe: Recipe, given: dict[str, Any], kind: str, allowed: float, gflops: float
) -> tuple[int, str]:
    """The parameters in the matrices that a budget trains to the least loss, by the law."""
    if kind == "tokens":
        size, tokens = OURS.best_size(allowed), allowed
        said = f"{allowed:.2g} tokens"
    else:
        flops = EXPECTED_UTILISATION * gflops * 1e9 * allowed if kind == "seconds" else allowed
        vocabulary = int(recipe.codec.get("vocabulary", VOCABULARY))
        size, tokens = OURS.best_decoder(flops, vocabulary, int(given.get("context", CONTEXT)))
        said = f"{flops:.1e} FLOPs"
        if kind == "seconds":
            said += (
                f", which fit in {allowed:.0f} s at {EXPECTED_UTILISATION:.0%} of the measured "
                "products,"
            )
    return max(1, int(size)), (
        f"{said} promise the least loss with N = {size / 1e6:.2g}M in the matrices and D = "
        f"{tokens / 1e6:.2g}M tokens, by the law of {OURS.source}"
    )


def derive_batch(recipe: Recipe, name: str, window: int, derived: Derived) -> int:
    """Examples (or windows of ``window`` tokens) a step."""
    stage = recipe.stages[name]
    kind, allowed = stage_amount(recipe, name) or ("seconds", 0.0)

    def rule() -> tuple[int, str]:
        if window <= 1:
            return 64, "customary for small models"
        # The useful batch grows with the length of the run; doubling it for each fourfold length
        # keeps hundreds of updates in a short run and the noise small in a long one.
        unit_run = {"seconds": 150.0, "tokens": 4e6, "flops": 4e13}[kind]
        length = (allowed / unit_run) ** (0.5 if kind == "flops" else 1.0)
        tokens = 4096 * 2 ** max(0, round(math.log(max(length, 0.01), 4)))
        unit = {"seconds": f"{allowed:.0f} s", "tokens": f"{allowed:.2g} tokens"}
        return max(1, tokens // window), (
            f"{tokens} tokens a step: small enough for hundreds of updates in "
            f"{unit.get(kind, f'{allowed:.1e} FLOPs')}, doubled for every fourfold budget"
        )

    batch = int(derived.put(f"{name}.batch", stage.batch, rule))
    if batch % stage.accumulate:
        batch = math.ceil(batch / stage.accumulate) * stage.accumulate
        derived.values[f"{name}.batch"] = batch
    return batch


def derive_rates(
    stage: Stage, name: str, preferred: str, derived: Derived, *, published: bool = False
) -> None:
    """Optimiser, learning rates and schedule; ``preferred`` is the model family's optimiser.

    ``published`` says that the stage begins with published weights.
    """
    reason = OPTIMIZER_REASONS[preferred]
    usually = PUBLISHED_OPTIMIZER if published else (preferred, reason)
    if stage.adapter is not None:
        usually = ADAPTER_OPTIMIZER
    optimizer = derived.put(f"{name}.optimizer", stage.optimizer, lambda: usually)
    tuning = name == "tune"  # what was learned shall be bent, not overwritten
    said = ", halved when tuning" if tuning else ""
    rate = RATES[optimizer]
    usual = (rate / 2 if tuning else rate, f"default of {optimizer}{said}")
    if optimizer == "adamw" and published:
        usual = PUBLISHED_RATE
    if optimizer == "adamw" and stage.adapter is not None:
        usual = (ADAPTER_TIMES * usual[0], f"of adapters {ADAPTER_TIMES} times: {usual[1]}")
        if stage.adapter.prompt or stage.adapter.prefix:
            usual = PROMPT_RATE
    derived.put(f"{name}.learning_rate", stage.learning_rate, lambda: usual)
    derived.put(
        f"{name}.matrix_learning_rate",
        stage.matrix_learning_rate,
        lambda: (0.01 if tuning else 0.02, f"default of Muon{said}"),
    )
    averages = optimizer == "schedule_free"
    schedule = derived.put(
        f"{name}.schedule",
        stage.schedule,
        lambda: (
            ("constant", "the average replaces it (arXiv:2405.15682)") if averages else SCHEDULE
        ),
    )
    cycle = schedule == "one_cycle"  # as its source has it: up, as long down, and a short end
    reason = "a cycle of equal halves, then a tenth to end in (arXiv:1708.07120)"
    warmup = (0.05, "the average remembers the start (arXiv:2405.15682)") if averages else WARMUP
    derived.put(f"{name}.warmup", stage.warmup, lambda: (0.45, reason) if cycle else warmup)
    derived.put(f"{name}.decay", stage.decay, lambda: (0.1, reason) if cycle else DECAY)


def derive_compile(
    stage: Stage,
    name: str,
    *,
    able: bool,
    seconds_left: float,
    derived: Derived,
    whole: bool = False,
    fused: float = 0.0,
) -> None:
    """Whether to compile the model: where it can be, and the stage is long enough to gain.

    ``able`` says that model and machine can; ``seconds_left`` is what the stage is expected to
    take without; ``whole`` that it is a small model, compiled as one; ``fused`` how many times the
    speed it still gives in bfloat16, where kernels do much of what a compiler would (0: they do
    not).
    """

    def rule() -> tuple[bool, str]:
        if not able:
            return False, "nothing to compile, or no compiler here"
        precision = derived.values[f"{name}.precision"]
        gain = WHOLE_GAIN if whole else COMPILED_GAIN[precision]
        if fused and precision == "bfloat16":
            gain = fused
        pays = compile_pays(gain, COMPILE_SECONDS, seconds_left)
        return pays, (
            f"about {COMPILE_SECONDS:.0f} s of compiling, then {gain:g} times the speed, in about "
            f"{seconds_left:.0f} s"
        )

    derived.put(f"{name}.compile", stage.compile, rule)


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


def most_passes(stage: Stage, objective: Objective, codec: Codec) -> float:
    """Passes over the data after which a budget of time ends early; infinite: never.

    Those that were asked for; else none is too many where every pass shows something else: other
    views, other noise.
    """
    if stage.epochs is not None:
        return stage.epochs
    if stage.augment or getattr(objective, "draws", False):
        return math.inf
    return PASSES if "tokens" in codec.ragged else PASSES_OF_ROWS


def derive_steps(
    recipe: Recipe,
    name: str,
    per_epoch: float,
    seconds_per_step: Callable[[], float],
    derived: Derived,
    *,
    cost: Cost | None = None,
    most: float = PASSES,
) -> int:
    """The number of updates, from steps, epochs or the budget; of these two, the fewer.

    ``cost`` is that of a step, which a budget of tokens or FLOPs asks for; ``most`` are the passes
    over the data that a budget of time is not to exceed, see ``most_passes``.
    """
    stage = recipe.stages[name]

    def rule() -> tuple[int, str]:
        epochs = stage.epochs or 0.0
        asked = max(1, math.ceil(epochs * per_epoch))
        whole = asked, f"{epochs:g} epochs of {per_epoch:.4g} steps"
        kind, allowed = stage_amount(recipe, name) or ("", 0.0)
        if not kind:
            if epochs:
                return whole
            steps = max(1, math.ceil(per_epoch))
            return steps, "one pass over the data (no steps, epochs or budget given)"
        if kind == "seconds":
            each = seconds_per_step()
            steps = max(1, int(allowed / each))
            spent = f"{allowed:.0f} s at {each * 1000:.0f} ms a step measured here"
        else:
            each = 1.0 if cost is None else cost.tokens if kind == "tokens" else cost.flops
            steps = max(1, round(allowed / each))
            spent = f"{allowed:.3g} {kind} at {each:.3g} a step"
        spent += f": {steps / per_epoch:.2g} passes over the data"
        if epochs:
            return (
                whole if asked <= steps else (steps, f"{spent}, of {epochs:g} that were asked for")
            )
        cap = max(1, math.ceil(min(most * per_epoch, steps)))
        if kind == "seconds" and steps > cap:
            why = "teach little (arXiv:2305.16264)" if most == PASSES else "learn it by heart"
            return cap, (
                f"{most:g} passes over the data; {steps} steps of {each * 1000:.0f} ms "
                f"would fit in {allowed:.0f} s, but more passes {why}; epochs says how many"
            )
        return steps, spent

    steps = int(derived.put(f"{name}.steps", stage.steps, rule))
    tenth = max(1, steps // 10)
    derived.put(f"{name}.validate_every", stage.validate_every, lambda: (tenth, "ten times a run"))
    derived.put(f"{name}.save_every", stage.save_every, lambda: (tenth, "ten times a run"))
    derived.put(f"{name}.sample_every", stage.sample_every, lambda: (2 * tenth, "five times a run"))
    return steps
