"""SGD with momentum, its one kernel called directly.

    b <- m b + g,   W <- W - r b        (g: the gradient, plus weight decay times W)

What torch does around an optimiser's step (hooks, marks for its profiler, sorting tensors by
device) takes a model of a hundred thousand parameters longer than the update.
"""

from __future__ import annotations

from typing import Any

import torch


class SGD(torch.optim.SGD):
    """torch's SGD for parameters of one device, with fused kernels and momentum from zero.

    Starting from a zero buffer is what the formula says; torch's own start wants a gradient of
    every parameter at once.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float, momentum: float) -> None:
        super().__init__(groups, lr=rate, momentum=momentum, fused=True)
        for group in self.param_groups:
            for p in group["params"] if momentum else ():
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)

    @torch.no_grad()
    def update(self) -> None:
        """``step``, bit for bit, and the gradients dropped; no hooks are called."""
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if not pairs:  # the kernel wants at least one
                continue
            torch._fused_sgd_(
                [p for p, _ in pairs],
                [g for _, g in pairs],
                [self.state[p]["momentum_buffer"] for p, _ in pairs] if group["momentum"] else [],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
            for p, _ in pairs:
                p.grad = None
