"""Optimisers: SGD, Adam, AdamW, and Muon for matrices beside AdamW for the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.errors import CorruptError, ModelwrightError, did_you_mean

NAMES = ("sgd", "adam", "adamw", "muon")

# Coefficients of the quintic iteration that pushes singular values towards 1 fastest, from the
# Muon write-up (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """Approximate U V^T of the singular value decomposition of matrices (n, rows, columns).

    Newton-Schulz: X <- a X + (b A + c A^2) X with A = X X^T, after scaling to norm <= 1.
    """
    a, b, c = _QUINTIC
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x.mT if tall else x
    return orthogonal


class Muon(torch.optim.Optimizer):
    """Momentum, then each matrix's update orthogonalised (Nesterov form).

    m <- momentum * m + (1 - momentum) * g, u = (1 - momentum) * g + momentum * m,
    W <- W - rate * max(1, rows / columns)^0.5 * orthogonalise(u), with decoupled weight decay.
    Matrices of one shape are orthogonalised together, which keeps small products efficient.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision  # of the Newton-Schulz products

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not used."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, parameters in by_shape.items():
                self._update(parameters, group, max(1.0, shape[0] / shape[1]) ** 0.5)

    def _update(
        self, parameters: list[nn.Parameter], group: Mapping[str, Any], scale: float
    ) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        values: list[Tensor] = list(parameters)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        update = orthogonalise(torch.stack(list(nesterov)).to(self.precision)).float()
        if group["weight_decay"]:
            torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(values, list(update.unbind()), alpha=-group["lr"] * scale)


class Optimizers:
    """The optimisers of one model, driven together.

    Every group keeps ``base_lr``; ``set_rate(m)`` makes the rate base_lr * m.
    """

    def __init__(self, model: nn.Module, members: list[torch.optim.Optimizer]) -> None:
        self.members = members
        self.names = {id(p): name for name, p in model.named_parameters()}
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
        """Update all parameters and drop the gradients."""
        for member in self.members:
            member.step()
            member.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All state as tensors named ``parameter:key``, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for member in self.members:
            for p, state in member.state.items():
                for key, value in state.items():
                    if value is None:  # SGD keeps no buffer without momentum
                        continue
                    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                    tensors[f"{self.names[id(p)]}:{key}"] = tensor
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter, _, key = name.rpartition(":")
            by_name.setdefault(parameter, {})[key] = tensor.clone()
        for member in self.members:
            for group in member.param_groups:
                for p in group["params"]:
                    state = by_name.pop(self.names[id(p)], None)
                    if state is not None:
                        member.state[p] = state
        if by_name:
            raise CorruptError(
                f"checkpoint: optimiser state for unknown parameters {json.dumps(sorted(by_name))};"
                " the recipe's model differs from the one that was saved"
            )


def build_optimizers(
    model: nn.Module,
    name: str,
    *,
    learning_rate: float,
    matrix_learning_rate: float,
    momentum: float,
    weight_decay: float,
    precision: torch.dtype,
) -> Optimizers:
    """The optimiser called ``name`` over the model's trainable parameters.

    "muon" gives the matrices inside the blocks ``matrix_learning_rate`` and orthogonal updates,
    and all else (embedding, head, gains) AdamW at ``learning_rate``. Weight decay applies to
    matrices only: gains and biases are not to be pulled to zero.
    """
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    outer = {id(p) for n, p in trainable if n.startswith(("embedding.", "output."))}
    matrices = [p for _, p in trainable if p.ndim == 2 and id(p) not in outer]
    if name == "sgd":
        every = [p for _, p in trainable]
        sgd = torch.optim.SGD(
            every, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, foreach=True
        )
        return Optimizers(model, [sgd])
    if name == "adam":
        return Optimizers(
            model,
            [
                torch.optim.Adam(
                    [p for _, p in trainable],
                    lr=learning_rate,
                    weight_decay=weight_decay,
                    foreach=True,
                )
            ],
        )
    betas = (0.9, 0.95)
    if name == "adamw":
        decayed = [p for _, p in trainable if p.ndim >= 2]
        rest = [p for _, p in trainable if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, foreach=True)
        return Optimizers(model, [adamw])
    if name == "muon":
        if not matrices:
            raise ModelwrightError("optimizer: 'muon' needs a model with matrices; use 'adamw'")
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in trainable if id(p) not in chosen]
        adam = torch.optim.AdamW(
            rest, lr=learning_rate, betas=betas, weight_decay=0.0, foreach=True
        )
        muon = Muon(matrices, matrix_learning_rate, momentum, weight_decay, precision)
        return Optimizers(model, [adam, muon])
    hint = did_you_mean(name, NAMES)
    raise ModelwrightError(f"optimizer: no optimiser {name!r}{hint}; known: {', '.join(NAMES)}")
