"""The memory of a training step of any family, before one is taken.

    peak = program + parameters + state + what the passes hold + what the heap wastes

or, where that is more, what the update holds. What the passes hold is read off a step on tensors
without numbers (``trace.py``); ``benchmarks/models/memory.py`` holds the sum against trainings.
Gradients and state are those of the parameters that are trained: with adapters few, and a base that
is held in fewer bits takes as many.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from modelwright import runtime
from modelwright.models.lora import Adapter, adapt
from modelwright.models.model import ModelConfig
from modelwright.models.narrow import held_in
from modelwright.pipeline.trace import LARGE, Change, Trace, inputs_for, meta, traced
from modelwright.recipe import Stage
from modelwright.training.budget import Derived
from modelwright.training.forecast import PROGRAM_BYTES, SAFE, STATE_BYTES, WASTE, Memory
from modelwright.training.optimizers import inner_matrices
from modelwright.training.tuning import Freezing

# Bytes that a FLOP of a step leaves behind, at the very most: even of a convolution of 3 x 3 on
# one channel, 9 products of 2 FLOPs make 4 bytes, of which some copies are kept.
BYTES_A_FLOP = 1.0
LITTLE = 0.05  # of the free memory: what takes no more is not gone through


@dataclass(frozen=True)
class Step:
    """One update: ``accumulate`` micro-batches of ``rows`` rows.

    ``shards`` processes divide parameters, gradients and optimiser state (FSDP).
    """

    rows: int
    accumulate: int = 1
    optimizer: str = "muon"
    precision: str = "float32"
    recompute: bool = False
    ema: bool = False
    shards: int = 1


class Forecast:
    """The memory of steps of one model on ``device``, "cpu" or "cuda".

    ``program`` is what the process holds beside: Python, the libraries. ``change`` is done to the
    model first: adapters, frozen parameters. Passes that were gone through once are remembered.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: str = "cpu",
        program: float = PROGRAM_BYTES,
        change: Change | None = None,
    ) -> None:
        self.config, self.device, self.program, self.change = config, device, program, change
        self.model = meta(config, change)
        self.passes = functools.cache(self._passes)

    def _passes(self, rows: int, precision: str, recompute: bool) -> Trace | None:
        inputs = inputs_for(self.config, rows)
        if inputs is None:
            return None
        return traced(self.config, inputs, precision, recompute=recompute, change=self.change)

    def memory(self, step: Step) -> Memory | None:
        """The peak of a step after the first, which finds the optimiser's state in place.

        Without the activations where nobody knows them: the family's input is not known, or what
        it does depends on the numbers. None where Muon finds no matrix.
        """
        trace = self.passes(step.rows, step.precision, step.recompute)
        return peak(self.model, step, trace, self.device, self.program)

    def fitted(self, wanted: Step, free: float) -> tuple[Step, Memory | None]:
        """The same update in the fewest micro-batches that ``free`` bytes hold, and its memory.

        Smaller micro-batches first, which cost little; then the activations are recomputed, where
        the family can, which costs a third of the products. What fits in no way comes back as
        small as can be.
        """
        rows = wanted.rows * wanted.accumulate
        # A batch norm has nothing to go by in a single row.
        least = 2 if any(isinstance(m, nn.BatchNorm2d) for m in self.model.modules()) else 1
        cuts = [n for n in range(wanted.accumulate, rows + 1) if rows % n == 0]
        cuts = [n for n in cuts if rows // n >= least] or [wanted.accumulate]
        again = [True] if wanted.recompute or hasattr(self.model, "recompute") else []

        def cut(by: int, recompute: bool) -> Step:
            return replace(wanted, rows=rows // by, accumulate=by, recompute=recompute)

        def fits(step: Step) -> bool:
            found = self.memory(step)
            return found is None or found.total <= SAFE * free

        choice = wanted
        for recompute in dict.fromkeys([wanted.recompute, *again]):
            choice = cut(cuts[-1], recompute)
            if fits(choice):
                by = _first(cuts, lambda by, r=recompute: fits(cut(by, r)))  # type: ignore[misc]
                choice = cut(by, recompute)
                break
        return choice, self.memory(choice)


def change_of(stage: Stage) -> Change | None:
    """What a stage does to a model before it is trained; None: nothing.

    What is frozen at first and trained later counts as trained.
    """
    if (given := stage.adapter) is not None:
        return functools.partial(adapt, adapter=Adapter(**given.model_dump()))
    if stage.freeze:
        return functools.partial(Freezing, freeze=stage.freeze, unfreeze=stage.unfreeze)
    return None


def derive_memory(
    stage: Stage,
    name: str,
    config: ModelConfig,
    *,
    length: int,
    flops: float,
    free: float,
    derived: Derived,
) -> dict[str, Any]:
    """Micro-batches (``accumulate``) and recomputation: as few as the ``free`` bytes allow.

    ``length`` is the mean number of tokens of a row, ``flops`` are those of a step. What a family
    cannot be forecast for stays as the recipe has it.
    """
    batch, cut = int(derived.values[f"{name}.batch"]), stage.accumulate
    again = bool(stage.recompute)
    reason = "given in the recipe" if cut > 1 else "the whole batch at once"
    if flops * BYTES_A_FLOP > LITTLE * free:
        context = getattr(config, "context", None)
        rows = batch / cut if context is None else batch * length / context / cut
        optimizer, precision = (derived.values[f"{name}.{k}"] for k in ("optimizer", "precision"))
        wanted = Step(max(1, math.ceil(rows)), cut, optimizer, precision, again, bool(stage.ema))
        forecast = Forecast(config, runtime.device().type, 0.0, change_of(stage))
        step, need = forecast.fitted(wanted, free)
        if need is not None:
            said = f"{need.total / 2**30:.2f} GiB forecast beside the program"
            reason = f"{said}, {free / 2**30:.1f} free"
        again = step.recompute
        if step.accumulate > cut:  # the nearest number of parts that divides the batch
            parts = (n for n in range(step.accumulate, batch + 1) if batch % n == 0 == n % cut)
            cut = next(parts, batch)
    found = {"accumulate": cut, "recompute": again}
    for key, value in found.items():
        derived.values[f"{name}.{key}"], derived.reasons[f"{name}.{key}"] = value, reason
    return found


def _first(ordered: list[int], holds: Callable[[int], bool]) -> int:
    """The first for which it holds, where it holds for the last and for all after the first."""
    if holds(ordered[0]):
        return ordered[0]
    low, high = 0, len(ordered) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(ordered[middle]) else (middle, high)
    return ordered[high]


def peak(
    model: nn.Module,
    step: Step,
    trace: Trace | None,
    device: str = "cpu",
    program: float = PROGRAM_BYTES,
) -> Memory | None:
    """The peak of a step whose passes hold what ``trace`` says; None where Muon finds no matrix.

    Two moments can be it: somewhere in the passes, or in the update, when all gradients are there
    beside what it makes for itself. ``model`` may be on the meta device.
    """
    named = dict(model.named_parameters())
    learned = {n: p for n, p in named.items() if p.requires_grad}
    count = float(sum(p.numel() for p in learned.values()))
    inner = inner_matrices(learned)  # the others Muon leaves to AdamW
    held = 4.0 * count / step.shards
    frozen = 4.0 * sum(p.numel() for p in named.values()) - 4.0 * count
    frozen += sum(narrow.nbytes for narrow in held_in(model).values())
    state, (small, mapped) = (STATE_BYTES[step.optimizer] + 4.0 * step.ema) * count, (0.0, 0.0)
    narrow = 4.0 if step.precision == "float32" else 2.0
    if step.optimizer == "muon":
        if not inner:
            return None
        state += 4.0 * (count - sum(p.numel() for p in inner))
        small, mapped = _muon(inner, narrow, step.shards)
    # What the passes have left of the heap is not given back: mapped pieces come on top of it.
    grown = (1.0 + WASTE[device]) * trace.heap if trace is not None and device == "cpu" else 0.0
    moments = [(held, max(0.0, grown - held - small), small + mapped)]
    if trace is not None:
        wasted = WASTE[device] * (trace.heap if device == "cpu" else trace.passes)
        inside = trace.gradients / step.shards
        alone = trace.passes - trace.gradients
        if step.accumulate > 1:
            inside, alone = held, max(alone, trace.again + trace.largest)
        gathered = 2.0 * narrow * _largest_part(model) if step.shards > 1 else 0.0
        moments.append((inside, alone, wasted + gathered))
    gradients, kept, passing = max(moments, key=sum)
    weights = held + frozen / step.shards
    return Memory(weights, gradients, state / step.shards, kept, passing, program)


def _muon(matrices: list[nn.Parameter], narrow: float, shards: int) -> tuple[float, float]:
    """Bytes that its update makes below ``LARGE`` apiece, and above.

    What is to be orthogonalised, a piece a matrix; what comes out, a stack a shape; and of the
    largest stack three copies in the precision of products. Each process works on its share.
    """
    stacks: dict[tuple[int, ...], float] = {}
    for p in matrices:
        sides = (len(p), p.numel() // len(p))
        stacks[sides] = stacks.get(sides, 0.0) + p.numel() / shards
    pieces = [4.0 * n for n in stacks.values()] + 3 * [narrow * max(stacks.values())]
    small = 4.0 * sum(p.numel() for p in matrices)
    large = sum(size for size in pieces if size > LARGE)
    return small + sum(pieces) - large, large


def _largest_part(model: nn.Module) -> float:
    """Parameters of the largest piece that is gathered at once: a block, or what is in none."""
    parts = [
        block
        for child in model.children()
        for block in (child if isinstance(child, nn.ModuleList | nn.Sequential) else (child,))
    ]
    return float(max((sum(p.numel() for p in m.parameters()) for m in parts), default=math.nan))
