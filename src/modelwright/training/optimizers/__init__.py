"""Optimisers: SGD, Adam, AdamW, Muon, Adafactor, Lion and schedule-free AdamW, one interface."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.training.average import Average, replaced
from modelwright.training.optimizers.adafactor import Adafactor
from modelwright.training.optimizers.lion import Lion
from modelwright.training.optimizers.muon import (
    Muon,
    Placement,
    inner_matrices,
    orthogonalise,
)
from modelwright.training.optimizers.schedule_free import ScheduleFreeAdamW
from modelwright.training.optimizers.sgd import SGD

__all__ = [
    "NAMES",
    "Adafactor",
    "Lion",
    "Muon",
    "Optimizers",
    "Placement",
    "ScheduleFreeAdamW",
    "build_optimizers",
    "inner_matrices",
    "orthogonalise",
]

NAMES = ("sgd", "adam", "adamw", "muon", "adafactor", "lion", "schedule_free")
BETAS = (0.9, 0.95)  # a shorter memory of squares than Adam's own 0.999: short runs need it
FUSED_DEVICES = ("cpu", "cuda")
COUNTERS = ("step", "weights")
TRAINING = "training"  # key of a parameter's own value, where another one is the model's


class Optimizers:
    """The optimisers of one model, driven together, and the average of its parameters, if any.

    Every group keeps ``base_lr``; ``set_rate(m)`` makes the rate base_lr * m.

    The weights to use can differ from those in training: the running ``average``, or the
    average that a schedule-free optimiser makes. ``evaluation()`` puts them in place.
    """

    def __init__(
        self,
        model: nn.Module,
        members: list[torch.optim.Optimizer],
        average: Average | None = None,
    ) -> None:
        self.members = members
        self.average = average
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        if average is not None:
            self.parameters |= dict(average.named)  # running statistics too
        self.names = {id(p): name for name, p in self.parameters.items()}
        self.own: dict[int, Tensor] | None = None  # training weights while others are in place
        for group in self.groups:
            group["base_lr"] = group["lr"]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """All parameter groups."""
        return [g for member in self.members for g in member.param_groups]

    def set_rate(self, multiplier: float) -> None:
        """Scale every group's base learning rate."""
        for group in self.groups:
            group["lr"] = group["base_lr"] * multiplier

    def step(self) -> None:
        """Update all parameters, then their average, and drop the gradients."""
        for member in self.members:
            # With its marks while a profiler looks on: it tells the update's share by them.
            if isinstance(member, SGD) and not torch.autograd.profiler._is_profiler_enabled:
                member.update()
                continue
            member.step()
            member.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _weights_to_use(self) -> list[tuple[Tensor, Tensor]]:
        """The parameters whose value to use is another than the one in training, with it."""
        if self.average is not None:
            return self.average.pairs
        frees = [m for m in self.members if isinstance(m, ScheduleFreeAdamW)]
        return [pair for member in frees for pair in member.averages()]

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """The weights to use in place of those in training, which then come back bit by bit.

        To validate, sample and save the model in. Inside it, ``state`` gives what it gives
        outside; a second ``evaluation`` inside the first changes nothing.
        """
        if self.own is not None:
            yield
            return
        with replaced(self._weights_to_use()) as own:
            self.own = own
            try:
                yield
            finally:
                self.own = None

    def state(self) -> dict[str, Tensor]:
        """All state as tensors named ``parameter:key``, for a checkpoint.

        The weights in training are among them where the model's group holds others.
        """
        tensors: dict[str, Tensor] = {}
        for member in self.members:
            for p, state in member.state.items():
                for key, value in state.items():
                    if value is None:  # SGD keeps no buffer without momentum
                        continue
                    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                    tensors[f"{self.names[id(p)]}:{key}"] = tensor
        own = self.own
        if own is None:
            own = {id(p): p.detach() for p, _ in self._weights_to_use()}
        return {**tensors, **{f"{self.names[i]}:{TRAINING}": value for i, value in own.items()}}

    def saved(self) -> dict[str, dict[str, Tensor]]:
        """The groups of a checkpoint that continue these optimisers: state, and the average."""
        groups = {"optimizer": self.state()}
        return groups if self.average is None else {**groups, "average": self.average.state()}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Become what ``saved`` told of; to be called after the model's group was loaded.

        Raises:
            CorruptError: the tensors are those of another model, or the average is missing.
        """
        self.load_state(groups["optimizer"])
        if self.average is not None:
            if "average" not in groups:
                raise CorruptError("checkpoint: it has no average; it was saved without `ema`")
            self.average.load_state(groups["average"])

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Become what ``state`` told of, the weights in training included where it has them.

        Raises:
            CorruptError: the tensors are those of another model.
        """
        by_name: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter, _, key = name.rpartition(":")
            by_name.setdefault(parameter, {})[key] = tensor
        unknown = sorted(by_name.keys() - self.parameters.keys())
        if unknown:
            raise CorruptError(
                f"checkpoint: optimiser state for unknown parameters {json.dumps(unknown)};"
                " the recipe's model differs from the one that was saved: set it as it was"
            )
        for name, state in by_name.items():
            if TRAINING in state:
                with torch.no_grad():
                    self.parameters[name].copy_(state.pop(TRAINING))
        for member in self.members:
            member.state.clear()
            for group in member.param_groups:
                for p in group["params"]:
                    found = by_name.get(self.names[id(p)])
                    if found:
                        member.state[p] = _placed(found, p, fused=bool(group.get("fused")))


def _placed(state: Mapping[str, Tensor], p: Tensor, *, fused: bool) -> dict[str, Tensor]:
    """A copy of one parameter's state: beside it, but its counters on the CPU unless fused."""
    return {
        key: value.to("cpu" if key in COUNTERS and not fused else p.device, copy=True)
        for key, value in state.items()
    }


def build_optimizers(
    model: nn.Module,
    name: str,
    *,
    learning_rate: float,
    matrix_learning_rate: float,
    momentum: float,
    weight_decay: float,
    precision: torch.dtype,
    momentum_warmup: int = 0,
    ema: float = 0.0,
    placement: Placement | None = None,
    rates: Mapping[str, float] | None = None,
) -> Optimizers:
    """The optimiser called ``name`` over the model's trainable parameters.

    "muon" gives the matrices and filters inside ``matrix_learning_rate`` and orthogonal updates,
    and all else (embedding, head, gains) AdamW at ``learning_rate``. Weight decay applies to
    matrices only: gains and biases are not to be pulled to zero. With ``ema`` above 0 the
    parameters are averaged with that decay. Where matrices are cut over processes,
    ``placement`` says how to collect them. ``rates`` are multiples of the rate of some parameters,
    by name.

    Raises:
        ModelwrightError: no optimiser of that name, or it does not suit the model.
    """
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise ModelwrightError(f"optimizer: no optimiser {name!r}{hint}; known: {', '.join(NAMES)}")
    if name == "adafactor" and placement is not None and placement.sharded:
        raise ModelwrightError(
            "optimizer: 'adafactor' needs whole matrices, these are sharded; use 'adamw' or 'muon'"
        )
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    average = Average(model, ema) if ema else None
    times = {id(trainable[n]): factor for n, factor in (rates or {}).items()}
    matrices: list[nn.Parameter] = []
    if name == "muon":
        matrices = inner_matrices(trainable)
        if not matrices:
            raise ModelwrightError("optimizer: 'muon' needs a model with matrices; use 'adamw'")
        muon = Muon(
            _by_rate(matrices, matrix_learning_rate, times),
            matrix_learning_rate,
            momentum,
            weight_decay,
            precision,
            momentum_warmup=momentum_warmup,
            placement=placement,
        )
    chosen = {id(p) for p in matrices}
    rest = [p for p in trainable.values() if id(p) not in chosen]
    groups = [
        {**group, **part}
        for group in _groups(rest, weight_decay if name != "muon" else 0.0)
        for part in _by_rate(group["params"], learning_rate, times)
    ]
    made = _made(name, groups, learning_rate, momentum, _fused(rest)) if groups else []
    return Optimizers(model, [*made, muon] if matrices else made, average)


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """The matrices, whose weights decay, apart from the gains and biases."""
    if not weight_decay:  # one group is one call
        return [{"params": parameters, "weight_decay": 0.0}] if parameters else []
    parts = (
        ([p for p in parameters if p.ndim >= 2], weight_decay),
        ([p for p in parameters if p.ndim < 2], 0.0),
    )
    return [{"params": part, "weight_decay": decay} for part, decay in parts if part]


def _by_rate(
    parameters: list[nn.Parameter], rate: float, times: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Parameters apart by their rates; those of the full rate come last, whose rate is logged."""
    factors = sorted({times.get(id(p), 1.0) for p in parameters}, key=lambda f: (f == 1, f))
    return [
        {"params": [p for p in parameters if times.get(id(p), 1.0) == f], "lr": rate * f}
        for f in factors
    ]


def _fused(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has one kernel for the whole update of all of these."""
    return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)


def _made(
    name: str, groups: list[dict[str, Any]], rate: float, momentum: float, fused: bool
) -> list[torch.optim.Optimizer]:
    """The optimiser called ``name``, of Muon the one beside it."""
    if name == "sgd":
        if fused:
            return [SGD(groups, rate, momentum)]
        sgd = torch.optim.SGD(groups, lr=rate, momentum=momentum, foreach=True)
        for p in (p for group in groups for p in group["params"] if momentum):
            # From zero, as the formula has it: torch's own start wants every gradient at once.
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return [sgd]
    if name == "adam":
        return [torch.optim.Adam(groups, lr=rate, fused=fused, foreach=not fused)]
    if name == "adafactor":
        return [Adafactor(groups, lr=rate)]
    if name == "lion":
        return [Lion(groups, lr=rate)]
    if name == "schedule_free":
        return [ScheduleFreeAdamW(groups, lr=rate, betas=BETAS)]
    return [torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=fused, foreach=not fused)]
