"""What the same recipe would take elsewhere: a forecast from the law of loss and a roofline.

Nothing is run. The products' speed is the device's published peak times an assumed utilisation,
the exchange of gradients is a ring at the published bandwidth, memory is counted as
``training/forecast.py`` counts it. Every line says what it assumes; the real figures can differ by
tens of percents, and a device that is shared or throttled by more.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from modelwright import runtime
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.models import decoder
from modelwright.models.model import config_class
from modelwright.options import count
from modelwright.pipeline.memory import Forecast, Step, change_of
from modelwright.recipe import Recipe
from modelwright.training import budget, forecast, scaling
from modelwright.training.forecast import Work

GIB = 2**30
USABLE = 0.9  # of a device's memory: the rest is the driver's and the libraries'
PROGRAM_BYTES = 1 << 30  # context and library workspaces on an accelerator
NETWORK = 50e9  # bytes/s into and out of one device between machines: one 400 Gb/s adapter each
HIDDEN = 0.5  # of the compute time, in which an exchange can hide: most of the backward pass
LAUNCHES = 4e-4  # seconds a block and micro-batch, at least: about 80 kernels of 5 microseconds
CROWD = 0.03  # lost to stragglers and restarts for every tenfold number of machines
MOST = 16384  # devices: beyond, nothing here has been compared with anything published


@dataclass(frozen=True)
class Device:
    """A device by its data sheet: dense FLOP/s, bytes, bytes/s; ``link`` one way; a ``box``."""

    bf16: float
    fp32: float
    memory: float
    bandwidth: float
    link: float
    box: int
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
# Peaks without sparsity; links one way, half of the figure that data sheets give for both.
DEVICES = {
    "A100-40GB": Device(312e12, 19.5e12, 40e9, 1.555e12, 300e9, 8, f"{_NVIDIA}a100/ (SXM)"),
    "A100": Device(312e12, 19.5e12, 80e9, 2.039e12, 300e9, 8, f"{_NVIDIA}a100/ (80 GB SXM)"),
    "H100": Device(989e12, 67e12, 80e9, 3.35e12, 450e9, 8, f"{_NVIDIA}h100/ (SXM)"),
    "H200": Device(989e12, 67e12, 141e9, 4.8e12, 450e9, 8, f"{_NVIDIA}h200/ (SXM)"),
    "B200": Device(2250e12, 75e12, 180e9, 7.7e12, 900e9, 8, f"{_NVIDIA}hgx/ (B200)"),
    "L4": Device(121e12, 30.3e12, 24e9, 0.3e12, 32e9, 8, f"{_NVIDIA}l4/"),
    "L40S": Device(362e12, 91.6e12, 48e9, 0.864e12, 32e9, 8, f"{_NVIDIA}l40s/"),
    "A10": Device(125e12, 31.2e12, 24e9, 0.6e12, 32e9, 4, f"{_NVIDIA}products/a10-gpu/"),
    "RTX3090": Device(71e12, 35.6e12, 24e9, 0.936e12, 32e9, 2, "NVIDIA GA102 white paper"),
    "RTX4090": Device(165e12, 82.6e12, 24e9, 1.008e12, 32e9, 2, "NVIDIA Ada white paper"),
    "MI300X": Device(
        1307e12,
        163e12,
        192e9,
        5.3e12,
        448e9,
        8,
        "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html",
    ),
}


@dataclass(frozen=True)
class Plan:
    """A recipe on some devices: what is trained, how it is laid out, what it takes."""

    config: decoder.Config
    devices: int
    kind: str
    work: Work
    tokens: float
    steps: int
    global_tokens: int
    utilisation: float
    compute_seconds: float
    exchange_seconds: float
    seconds: float
    memory: forecast.Memory
    capacity: float
    cost: float | None
    law: scaling.Law
    loss: float
    notes: tuple[str, ...]


def parse_target(text: str) -> tuple[int, str]:
    """Number and kind of devices in "8xH100", "H100" or "1024 x H200".

    Raises:
        ModelwrightError: it is not of that form, or the device is not in the table.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?([A-Za-z][\w-]*)\s*", text)
    if not match:
        raise ModelwrightError(f"--on: {text!r} names no devices; write it like 8xH100")
    known = {name.lower(): name for name in DEVICES}
    kind = known.get(match[2].lower())
    if kind is None:
        hint = did_you_mean(match[2].upper(), DEVICES)
        raise ModelwrightError(
            f"--on: no figures of {match[2]!r}{hint}; known: {', '.join(DEVICES)}"
        )
    number = int(match[1] or 1)
    if not 1 <= number <= MOST:
        raise ModelwrightError(f"--on: {number} devices; forecasts go from 1 to {MOST}")
    return number, kind


def check_price(price: float | None) -> None:
    """Refuse what is no price.

    Raises:
        ModelwrightError: it is negative or not finite.
    """
    if price is not None and not 0 <= price < math.inf:
        raise ModelwrightError(f"--price: {price:g} is no price of a device for an hour")


def utilisation(config: decoder.Config) -> float:
    """Assumed share of the peak that products reach: half, less for narrow matrices.

    0.30 at a width of 768, 0.40 at 2048, 0.44 at 4096: what published trainings of such widths
    report is 0.3 to 0.5 (arXiv:2204.02311, table 3; arXiv:2407.21783, table 4).
    """
    return 0.5 * config.width / (config.width + 512)


def plan(recipe: Recipe, on: str, price: float | None = None) -> Plan:
    """Forecast the training (stage train) of ``recipe`` on devices such as "8xH100".

    ``price`` is that of one device for an hour, in any currency.

    Raises:
        ModelwrightError: the recipe has no end that is known before its data are, is of a family
            that is not forecast, or does not fit on the devices.
    """
    number, kind = parse_target(on)
    check_price(price)
    device = DEVICES[kind]
    stage = recipe.first
    _check_forecast(recipe)
    precision = stage.precision or "bfloat16"
    peak = device.bf16 if precision == "bfloat16" else device.fp32
    derived = budget.Derived(values={"train.precision": precision})
    there = _machine(kind, device, number, recipe, precision)
    fields = budget.derive_model(recipe, there, derived)
    fields.setdefault("vocabulary", recipe.codec.get("vocabulary", budget.VOCABULARY))
    config = decoder.Config(**fields)
    notes = _missed(recipe, config)
    batch = budget.derive_batch(recipe, "train", config.context, derived)
    budget.derive_rates(stage, "train", config.optimizer, derived)
    if batch < number:
        notes.append(
            f"the batch of {batch} windows is raised to {number}, one for each device; a batch "
            "beyond the useful one learns less from a token than the law says"
        )
    batch = -(-max(batch, number) // number) * number
    update = batch * config.context
    optimizer = derived.values["train.optimizer"]
    wanted = Work(config, batch // number, 1, optimizer, precision, ema=bool(stage.ema))
    work, memory = _laid_out(wanted, number, device, notes)
    compute = _computing(work, update, number * peak)
    exchange = _exchange(work, number, device)
    each = (compute + max(0.0, exchange - HIDDEN * compute)) * crowd(number, device)
    steps = _steps(recipe, each, update, config)
    tokens, size = float(steps * update), float(config.matrix_parameters())
    law = scaling.nearest(size, tokens)
    notes += _tuned(recipe, config, precision)
    seconds = steps * each
    hours = seconds / 3600 * number
    return Plan(
        config=config,
        devices=number,
        kind=kind,
        work=work,
        tokens=tokens,
        steps=steps,
        global_tokens=update,
        utilisation=update * config.flops_per_item() / (each * number * peak),
        compute_seconds=compute,
        exchange_seconds=exchange,
        seconds=seconds,
        memory=memory,
        capacity=device.memory,
        cost=None if price is None else hours * price,
        law=law,
        loss=law.loss(size, tokens),
        notes=tuple(notes),
    )


def _computing(work: Work, update: int, peak: float) -> float:
    """Seconds of computing in a step of ``update`` tokens, on devices of ``peak`` FLOP/s in all."""
    config = work.config
    flops = update * config.flops_per_item() * (4 / 3 if work.recompute else 1)
    return max(flops / (peak * utilisation(config)), work.accumulate * config.depth * LAUNCHES)


def _check_forecast(recipe: Recipe) -> None:
    """Refuse what ``elsewhere.py`` forecasts: these formulas are the decoder's."""
    if recipe.published is not None or config_class(recipe.family) is not decoder.Config:
        what = recipe.published or recipe.family
        raise ModelwrightError(
            f"plan: the law of loss is about decoders trained from nothing, not for {what}; "
            "use `modelwright plan`, which forecasts time and memory of it"
        )


def _missed(recipe: Recipe, config: decoder.Config) -> list[str]:
    """A note where the shape has another size than the one that was asked for."""
    if "parameters" not in recipe.model:
        return []
    asked, found = count(recipe.model["parameters"]), config.matrix_parameters()
    if abs(math.log(found / asked)) <= 0.2:
        return []
    return [f"no shape near {asked:.3g} parameters is known; this one has {found:.3g}"]


def _tuned(recipe: Recipe, config: decoder.Config, precision: str) -> list[str]:
    """What the stage tune holds where not all is trained: adapters, frozen parameters."""
    if recipe.tune is None or (change := change_of(recipe.tune)) is None:
        return []
    step = Step(1, optimizer=recipe.tune.optimizer or "adamw", precision=precision)
    found = Forecast(config, "cuda", PROGRAM_BYTES, change).memory(step)
    if found is None:
        return []
    learned = found.gradients + found.optimizer
    return [
        f"stage tune, one window at a time: {found.total / GIB:.2f} GiB, of which "
        f"{found.parameters / GIB:.2f} are weights and {learned / GIB:.2f} gradients and state"
    ]


def _machine(
    kind: str, device: Device, number: int, recipe: Recipe, precision: str
) -> runtime.Machine:
    """The devices as the dial sees a machine: so that its rule buys what they reach.

    The dial plans with a share of the measured products that a CPU reaches; here the share
    depends on the width, which depends on the size. Two rounds settle it.
    """
    share, peak = 0.4, device.bf16 if precision == "bfloat16" else device.fp32
    machine = _described(kind, device, number * peak * share)
    for _ in range(2):
        found = budget.Derived(values={"train.precision": precision})
        fields = budget.derive_model(recipe, machine, found)
        share = utilisation(decoder.Config(**{"vocabulary": budget.VOCABULARY, **fields}))
        machine = _described(kind, device, number * peak * share)
    return machine


def _described(kind: str, device: Device, reached: float) -> runtime.Machine:
    planned = reached / budget.EXPECTED_UTILISATION / 1e9
    speeds = {"float32": planned, "bfloat16": planned}
    return runtime.Machine(kind, 1, device.memory / GIB, "", "", kind, speeds)


def _laid_out(
    wanted: Work, number: int, device: Device, notes: list[str]
) -> tuple[Work, forecast.Memory]:
    """The fewest shards and the fewest micro-batches that fit.

    Raises:
        ModelwrightError: not even one window fits with everything sharded.
    """
    free = USABLE * device.memory / forecast.SAFE
    shards = 1
    while True:
        work = forecast.fit_to_memory(replace(wanted, shards=shards), free, PROGRAM_BYTES, "cuda")
        memory = forecast.memory(work, PROGRAM_BYTES, "cuda")
        if memory.total <= forecast.SAFE * free:
            break
        if shards == number:
            less = ", or train.optimizer=adamw" if work.optimizer == "muon" else ""
            raise ModelwrightError(
                f"plan: {memory.total / GIB:.0f} GiB a device even over {number} shards, of "
                f"{USABLE * device.memory / GIB:.0f} usable; take more or larger devices{less}"
            )
        shards = min(2 * shards, number)
    if shards > 1:
        notes.append(f"parameters, gradients and optimiser state are cut into {shards} (FSDP)")
    if work.accumulate > 1:
        notes.append(f"{work.accumulate} micro-batches a step, to fit into memory")
    if work.recompute:
        notes.append("activations are recomputed: a third more products")
    return work, memory


def _exchange(work: Work, number: int, device: Device) -> float:
    count = float(forecast.parameter_count(work.config))
    layout = {"shards": work.shards, "accumulate": work.accumulate, "narrow": work.narrow}
    return exchange(count, number, device, **layout)


def exchange(
    count: float, number: int, device: Device, *, shards: int, accumulate: int, narrow: int
) -> float:
    """Seconds of communication in a step over ``count`` parameters.

    Plain data parallelism sums 4-byte gradients in a ring, 2 (n - 1) / n of them through every
    link. Sharded, the parameters are gathered twice in every micro-batch, in the ``narrow`` bytes
    of products, and the gradients are scattered once.
    """
    if number == 1:
        return 0.0
    ring = (number - 1) / number
    link = device.link if number <= device.box else min(device.link, NETWORK)
    if shards == 1:
        return 2 * ring * 4 * count / link
    return ring * count * (2 * accumulate * narrow + 4) / link


def crowd(number: int, device: Device) -> float:
    """Times the time that many boxes take: stragglers and restarts."""
    return 1 + CROWD * math.log10(max(1.0, number / device.box))


def _steps(recipe: Recipe, each: float, update: int, config: decoder.Config) -> int:
    """The number of updates.

    Raises:
        ModelwrightError: it depends on the data.
    """
    if recipe.first.steps is not None:
        return recipe.first.steps
    allowed = budget.stage_amount(recipe, "train")
    if recipe.first.epochs is not None or allowed is None:
        raise ModelwrightError(
            "plan: how long this trains depends on the data; add budget=1h, budget=20Mtok or "
            "train.steps=1000"
        )
    kind, value = allowed
    cost = {"seconds": each, "tokens": update, "flops": update * config.flops_per_item()}
    return max(1, int(value / cost[kind]))


def lines(made: Plan) -> list[str]:
    """The plan as text for a person."""
    c, m = made.config, made.memory
    size = forecast.parameter_count(c)
    source = DEVICES[made.kind]
    reach = made.law.reach(c.matrix_parameters(), made.tokens)
    far = "" if reach <= 1 else f", {reach:.3g} times beyond its runs: an extrapolation"
    result = [
        f"forecast for {made.devices} x {made.kind}, nothing was run",
        f"model    {size / 1e6:.4g}M parameters ({c.depth} x {c.width}), context {c.context}",
        f"training {made.tokens:.3g} tokens in {made.steps} steps of {made.global_tokens} tokens, "
        f"{made.work.optimizer}, {made.work.precision}",
        f"time     {duration(made.seconds)}: {made.tokens / made.seconds:.3g} tokens/s, "
        f"{made.utilisation:.0%} of the peak",
        f"memory   {m.total / GIB:.1f} of {made.capacity / GIB:.0f} GiB a device",
    ]
    if made.cost is not None:
        hours = made.seconds / 3600 * made.devices
        result.append(f"cost     {made.cost:.4g} for {hours:.4g} device hours")
    result += [
        f"loss     {made.loss:.3g} nats per token, by {made.law.source}, mean error "
        f"{made.law.error:.1%} where runs were{far}",
        "",
        "assumed:",
        f"  peak {source.bf16 / 1e12:.4g} bf16 and {source.fp32 / 1e12:.4g} fp32 TFLOP/s, "
        f"{source.bandwidth / 1e12:.4g} TB/s, link {source.link / 1e9:.4g} GB/s one way in boxes "
        f"of {source.box}: {source.source}",
        f"  products at {utilisation(c):.0%} of the peak at this width, and no block under "
        f"{LAUNCHES * 1e3:g} ms, for its kernels are launched one by one",
        f"  a step: {made.compute_seconds * 1e3:.4g} ms of computing, "
        f"{made.exchange_seconds * 1e3:.4g} ms of exchange, of which {HIDDEN:.0%} of the computing "
        f"hides as much; {NETWORK / 1e9:.0f} GB/s a device between boxes",
        "  loading data, validating and saving not counted; stage train alone",
    ]
    return result + [f"  {note}" for note in made.notes]


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for name, unit in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
