"""Schedule-free AdamW: an average in place of a falling rate (arXiv:2405.15682)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """Gradients at y, steps at z, and their average x, which is the model to use.

    With v of Adam at step t, d = g(y) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay * y:
    z <- z - rate * d, x <- (1 - c) x + c z, y <- (1 - b1) z + b1 x, where
    c = rate^2 / (sum of the squared rates so far) (algorithm 1 of the paper).

    The parameters hold y. Since x = (y - (1 - b1) z) / b1, it is made only when it is asked
    for (``averages``), and the memory is AdamW's; in y and z alone the step reads
    y <- (1 - c) y + c z - rate * (1 - b1 (1 - c)) d, with z before its own step.

    Args:
        parameters: parameters, or groups of them with their own ``weight_decay``.
        lr: the rate; constant after its warm-up, one to ten times AdamW's.
        betas: (b1, b2); b1 is how near the gradients are taken to the average.
        eps: in the denominator.
        weight_decay: decoupled, taken at y.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not used."""
        if closure is not None:
            raise ValueError("ScheduleFreeAdamW takes no closure")
        for group in self.param_groups:
            # A parameter that had no gradient at some steps has its own count and weights.
            alike: dict[tuple[float, float], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(self._counted(p, group["lr"]), []).append(p)
            for (count, weights), parameters in alike.items():
                share = group["lr"] ** 2 / weights if weights else 0.0
                self._update(parameters, group, count, share)

    def _counted(self, p: Tensor, rate: float) -> tuple[float, float]:
        """Steps of this parameter with this one, and the sum of its squared rates."""
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())  # both stay on the CPU: no waiting for a GPU
            state["weights"] = torch.zeros((), dtype=torch.float64)
            state["z"] = p.detach().clone()
            state["second"] = torch.zeros_like(p)
        state["step"] += 1
        state["weights"] += rate**2
        return float(state["step"]), float(state["weights"])

    def _update(
        self, parameters: list[Tensor], group: dict[str, Any], count: float, share: float
    ) -> None:
        (b1, b2), rate = group["betas"], group["lr"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        z = [self.state[p]["z"] for p in parameters]
        second = [self.state[p]["second"] for p in parameters]
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - b2)
        below = torch._foreach_div(second, 1 - b2**count)
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, group["eps"])
        update = torch._foreach_div(gradients, below)
        if group["weight_decay"]:
            torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
        torch._foreach_lerp_(parameters, z, share)
        torch._foreach_add_(parameters, update, alpha=-rate * (1 - b1 * (1 - share)))
        torch._foreach_add_(z, update, alpha=-rate)

    @torch.no_grad()
    def averages(self) -> list[tuple[Tensor, Tensor]]:
        """Every parameter that was trained, with its average x as a new tensor."""
        made: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            known = [p for p in group["params"] if p in self.state]
            if known:
                z = [self.state[p]["z"] for p in known]
                b1 = group["betas"][0]
                made += zip(known, torch._foreach_lerp(z, known, 1 / b1), strict=True)
        return made
