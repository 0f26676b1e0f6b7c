"""What the recipe of any family would take elsewhere: `modelwright plan`.

A decoder that is trained from nothing has formulas of its own and a law of loss (``plan.py``). Of
every other model one step is gone through on tensors without numbers (``trace.py``), which says
what it holds, how many operators it calls and how many bytes these move; FLOPs are the family's
own count. The time of a step is a roofline (doi:10.1145/1498765.1498785) of three bounds:

    step = max(FLOPs / (peak x utilisation), bytes moved / bandwidth, operators x launch)

beside the exchange of gradients, as for the decoder. No loss is forecast: the law is about
decoders of text that are trained from nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models import decoder
from modelwright.models.model import ModelConfig, config_class
from modelwright.pipeline import plan as decoders
from modelwright.pipeline.design import recipe_config
from modelwright.pipeline.memory import Forecast, Step, change_of
from modelwright.pipeline.plan import DEVICES, GIB, HIDDEN, NETWORK, PROGRAM_BYTES, USABLE, Device
from modelwright.pipeline.trace import inputs_for, item_flops
from modelwright.recipe import Recipe
from modelwright.training import budget, forecast

LAUNCH = 5e-6  # seconds an operator, at least, as in ``plan.LAUNCHES``
OPERATORS = 8  # of a layer, forward and backward, where they cannot be counted: 80 a block of ten
CONVOLUTIONS = 0.2  # of the peak, see ``utilisation``


@dataclass(frozen=True)
class Estimate:
    """A step of any family on some devices, and how many there are.

    ``rows`` are those of a step over all devices, ``items`` so many of ``unit``. The bounds of a
    step are in seconds: ``products``, ``moving``, ``launching``; the largest is what computing
    takes. ``capacity`` and ``memory`` are bytes a device.
    """

    config: ModelConfig
    devices: int
    kind: str
    step: Step
    parameters: float
    rows: int
    items: float
    unit: str
    steps: int
    assumed: float
    products: float
    moving: float
    launching: float
    exchange_seconds: float
    seconds: float
    utilisation: float
    memory: forecast.Memory
    capacity: float
    cost: float | None
    notes: tuple[str, ...]

    @property
    def compute_seconds(self) -> float:
        """Seconds of a step without the exchange."""
        return max(self.products, self.moving, self.launching)


def forecast_lines(recipe: Recipe, on: str, price: float | None = None) -> list[str]:
    """The forecast of any recipe as text, by the formulas that its model has.

    Raises:
        ModelwrightError: what ``plan.plan`` and ``estimate`` refuse.
    """
    if recipe.published is None and config_class(recipe.family) is decoder.Config:
        return decoders.lines(decoders.plan(recipe, on, price))
    return lines(estimate(recipe, on, price))


def utilisation(model: nn.Module) -> float:
    """Assumed share of the peak that products reach.

    Where most parameters are in convolutions, 0.2: ResNet-50 at 2,600 images a second of
    3 x 8.2 GFLOPs is 0.21 of an A100's peak
    (https://github.com/huggingface/pytorch-image-models/issues/1491). Else the decoder's rule for
    the mean lesser side of the matrices, which is an encoder's width and a recurrent network's
    hidden one: 0.30 at 768, 0.1 at 128 (``plan.utilisation``). Fused recurrent kernels gain with
    the width alike (arXiv:1604.01946); step by step, the operators' launches bound them first.
    """
    weights = [p for p in model.parameters() if p.ndim >= 2]
    total = sum(p.numel() for p in weights)
    if not total or sum(p.numel() for p in weights if p.ndim > 2) > total / 2:
        return CONVOLUTIONS
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in weights if p.ndim == 2 and id(p) not in tables] or weights
    counted = sum(p.numel() for p in matrices)
    width = sum(min(p.shape) * p.numel() for p in matrices) / counted
    return 0.5 * width / (width + 512)


def estimate(recipe: Recipe, on: str, price: float | None = None) -> Estimate:
    """Forecast the first training of ``recipe`` on devices such as "8xH100".

    ``price`` is that of one device for an hour, in any currency.

    Raises:
        ModelwrightError: the recipe leaves a field or its end to the data, the family does not say
            what it reads, or a step does not fit on the devices.
    """
    number, kind = decoders.parse_target(on)
    decoders.check_price(price)
    device, (name, stage) = DEVICES[kind], next(iter(recipe.stages.items()))
    config, missing = recipe_config(recipe)
    if missing:
        fields = " ".join(f"model.{field}=..." for field in missing)
        raise ModelwrightError(
            f"plan: the data decide {' and '.join(missing)} of {config.family}; say what they are: "
            f"{fields}, or plan a run whose training has begun: modelwright plan runs/NAME"
        )
    precision = stage.precision or "bfloat16"
    derived = budget.Derived(values={f"{name}.precision": precision})
    one = inputs_for(config, 1)
    if one is None:
        raise ModelwrightError(
            f"plan: the family {config.family} does not say what it reads; give it a method inputs"
        )
    window = round(one.items) if one.unit == "token" else 1
    batch = budget.derive_batch(recipe, name, window, derived)
    published = recipe.published is not None
    budget.derive_rates(stage, name, config.optimizer, derived, published=published)
    notes = _of_batch(batch, number, window)
    rows = -(-max(batch, number) // number)
    wanted = Step(
        rows,
        optimizer=derived.values[f"{name}.optimizer"],
        precision=precision,
        recompute=bool(stage.recompute),
        ema=bool(stage.ema),
    )
    made = Forecast(config, "cuda", PROGRAM_BYTES, change_of(stage))
    step, memory = _laid_out(made, wanted, number, device, notes)
    learned = float(sum(p.numel() for p in made.model.parameters() if p.requires_grad))
    update_rows = rows * number
    items = update_rows * one.items
    flops = item_flops(config) * items * (4 / 3 if step.recompute else 1)
    peak = device.bf16 if precision == "bfloat16" else device.fp32
    share = utilisation(made.model)
    bounds = (flops / (number * peak * share), *_traffic(made, step, learned, memory, device))
    narrow = 4 if precision == "float32" else 2
    layout = {"shards": step.shards, "accumulate": step.accumulate, "narrow": narrow}
    exchange = decoders.exchange(learned, number, device, **layout)
    compute = max(bounds)
    each = (compute + max(0.0, exchange - HIDDEN * compute)) * decoders.crowd(number, device)
    steps = _steps(recipe, name, each, items, flops)
    return Estimate(
        config=config,
        devices=number,
        kind=kind,
        step=step,
        parameters=float(sum(p.numel() for p in made.model.parameters())),
        rows=update_rows,
        items=items,
        unit=one.unit,
        steps=steps,
        assumed=share,
        products=bounds[0],
        moving=bounds[1],
        launching=bounds[2],
        exchange_seconds=exchange,
        seconds=steps * each,
        utilisation=flops / (each * number * peak),
        memory=memory,
        capacity=device.memory,
        cost=None if price is None else steps * each / 3600 * number * price,
        notes=tuple(notes),
    )


def _of_batch(batch: int, number: int, window: int) -> list[str]:
    notes = []
    if batch % number:
        raised = -(-max(batch, number) // number) * number
        notes.append(f"the batch of {batch} rows is raised to {raised}, as many for each device")
    if window > 1:
        notes.append(f"every row counts as full, {window} tokens long: shorter ones take less")
    return notes


def _laid_out(
    made: Forecast, wanted: Step, number: int, device: Device, notes: list[str]
) -> tuple[Step, forecast.Memory]:
    """The fewest shards and the fewest micro-batches that fit.

    Raises:
        ModelwrightError: not even the least does with everything sharded; or Muon finds no matrix.
    """
    free, shards = USABLE * device.memory / forecast.SAFE, 1
    while True:
        step, memory = made.fitted(replace(wanted, shards=shards), free)
        if memory is None:
            raise ModelwrightError(
                f"plan: muon has no matrix to work on in {made.config.family}; "
                "set the stage's optimizer to adamw"
            )
        if memory.total <= USABLE * device.memory:
            break
        if shards == number:
            raise ModelwrightError(
                f"plan: {memory.total / GIB:.0f} GiB a device even over {number} shards, of "
                f"{USABLE * device.memory / GIB:.0f} usable; take more or larger devices"
            )
        shards = min(2 * shards, number)
    if shards > 1:
        notes.append(f"parameters, gradients and optimiser state are cut into {shards} (FSDP)")
    if step.accumulate > 1:
        notes.append(f"{step.accumulate} micro-batches a step, to fit into memory")
    if step.recompute:
        notes.append("activations are recomputed: a third more products")
    if made.passes(step.rows, step.precision, step.recompute) is None:
        notes.append(
            f"what {made.config.family} does depends on the data: activations and their traffic "
            f"are NOT in memory and time, {OPERATORS} launches a layer are assumed"
        )
    return step, memory


def _traffic(
    made: Forecast, step: Step, learned: float, memory: forecast.Memory, device: Device
) -> tuple[float, float]:
    """Seconds of a step's bytes through the device's memory, and of launching its operators.

    Bytes are what every operator reads and writes by itself, as a step that is not compiled does.
    The update reads gradients twice, for clipping, writes them once, and reads and writes
    parameters and state; its operators work on many tensors at once and are left out.
    """
    update = (12.0 + 4.0 + 8.0) * learned / step.shards + 2 * memory.optimizer
    trace = made.passes(step.rows, step.precision, step.recompute)
    if trace is None:
        layers = sum(1 for m in made.model.modules() if not list(m.children()))
        return update / device.bandwidth, step.accumulate * layers * OPERATORS * LAUNCH
    moved = step.accumulate * trace.moved + update
    return moved / device.bandwidth, step.accumulate * trace.operators * LAUNCH


def _steps(recipe: Recipe, name: str, each: float, items: float, flops: float) -> int:
    """The number of updates.

    Raises:
        ModelwrightError: it depends on the data.
    """
    stage, allowed = recipe.stages[name], budget.stage_amount(recipe, name)
    if stage.steps is not None:
        return stage.steps
    if stage.epochs is not None or allowed is None:
        raise ModelwrightError(
            f"plan: how long this trains depends on the data; add budget=1h or {name}.steps=1000, "
            f"and {name}.epochs=null where epochs are given"
        )
    kind, value = allowed
    return max(1, int(value / {"seconds": each, "tokens": items, "flops": flops}[kind]))


def lines(made: Estimate) -> list[str]:
    """The estimate as text for a person."""
    m, source, step = made.memory, DEVICES[made.kind], made.step
    total = made.steps * made.items
    shape = {f.name: getattr(made.config, f.name) for f in dataclasses.fields(made.config)}
    numbers = ", ".join(f"{k} {v}" for k, v in shape.items() if type(v) is int)
    result = [
        f"forecast for {made.devices} x {made.kind}, nothing was run",
        f"model    {made.config.family}, {made.parameters / 1e6:.4g}M parameters ({numbers})",
        f"training {made.steps} steps of {made.rows} rows, {total:.3g} {made.unit}s in all, "
        f"{step.optimizer}, {step.precision}",
        f"time     {decoders.duration(made.seconds)}: {total / made.seconds:.3g} {made.unit}s/s, "
        f"{made.utilisation:.2g} of the peak",
        f"memory   {m.total / GIB:.1f} of {made.capacity / GIB:.0f} GiB a device",
    ]
    if made.cost is not None:
        hours = made.seconds / 3600 * made.devices
        result.append(f"cost     {made.cost:.4g} for {hours:.4g} device hours")
    bounds = {
        "products": made.products,
        "memory traffic": made.moving,
        "launches": made.launching,
    }
    by = max(bounds, key=lambda word: bounds[word])
    result += [
        "loss     none forecast: the law of loss is about decoders of text trained from nothing",
        "",
        "assumed:",
        f"  peak {source.bf16 / 1e12:.4g} bf16 and {source.fp32 / 1e12:.4g} fp32 TFLOP/s, "
        f"{source.bandwidth / 1e12:.4g} TB/s, link {source.link / 1e9:.4g} GB/s one way in boxes "
        f"of {source.box}: {source.source}",
        f"  products at {made.assumed:.0%} of the peak for matrices of this kind; every operator "
        f"moves its bytes by itself, and takes {LAUNCH * 1e6:g} us to launch",
        "  a step: " + ", ".join(f"{k} {v * 1e3:.4g} ms" for k, v in bounds.items()) + f"; {by} "
        f"bound it; exchange {made.exchange_seconds * 1e3:.4g} ms, of which {HIDDEN:.0%} of the "
        f"step hides as much; {NETWORK / 1e9:.0f} GB/s a device between boxes",
        "  loading data, validating and saving not counted; the first training alone",
    ]
    return result + [f"  {note}" for note in made.notes]
