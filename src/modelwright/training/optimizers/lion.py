"""Lion: the sign of an interpolated momentum, half the state of Adam (arXiv:2302.06675)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Lion(torch.optim.Optimizer):
    """Every entry moves by the rate, in the direction of its sign (algorithm 2 of the paper).

    u = sign(b1 m + (1 - b1) g), W <- W - rate * (u + weight_decay * W), m <- b2 m + (1 - b2) g.
    Since every entry of u is 1 in size, rates are a third to a tenth of AdamW's, and weight
    decays as many times larger (section 5 of the paper).

    Args:
        parameters: parameters, or groups of them with their own ``weight_decay``.
        lr: the rate.
        betas: (b1, b2); b1 weighs the momentum in the update, b2 is how long it remembers.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not used."""
        if closure is not None:
            raise ValueError("Lion takes no closure")
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters if p.grad is not None]
            for p in parameters:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in parameters]
            b1, b2 = group["betas"]
            update = torch._foreach_lerp(momenta, gradients, 1 - b1)
            torch._foreach_sign_(update)
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, update, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - b2)
