"""Adafactor: second moments of a matrix kept as one row and one column (arXiv:1804.04235)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Adafactor(torch.optim.Optimizer):
    """AdamW's step without momentum, its second moments factored and its updates clipped.

    With b = 1 - t^-0.8 and s = g^2 + 1e-30, for a tensor of at least two dimensions:
    R <- b R + (1 - b) mean of s over its columns, C <- b C + (1 - b) mean over its rows,
    V = R C^T / mean(R); other tensors keep V <- b V + (1 - b) s whole.
    U = g / sqrt(V), W <- W - rate * (U / max(1, rms(U) / clip) + weight_decay * W).
    (Algorithms 4 and 5 of the paper, sections 3, 5 and 6; means in place of sums change nothing.)

    The rate is absolute. ``torch.optim.Adafactor`` ties it to 1 / sqrt(t) and to the size of
    each parameter (section 8), which would bend every schedule and leave the projections that
    start at zero near zero.

    Args:
        parameters: parameters, or groups of them with their own ``weight_decay``.
        lr: the rate, as of AdamW.
        clip: largest root mean square of an update.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        clip: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "clip": clip, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not used."""
        if closure is not None:
            raise ValueError("Adafactor takes no closure")
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)

    def _update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())  # stays on the CPU: reading it waits for nothing
            if p.ndim < 2:
                state["second"] = torch.zeros_like(p)
            else:
                state["row"] = torch.zeros_like(p[..., 0])
                state["column"] = torch.zeros_like(p[..., 0, :])
        state["step"] += 1
        new = float(state["step"]) ** -0.8  # 1 - b
        squared = gradient.square().add_(1e-30)
        if p.ndim < 2:
            state["second"].lerp_(squared, new)
            update = gradient * state["second"].rsqrt()
        else:
            row, column = state["row"], state["column"]
            row.lerp_(squared.mean(dim=-1), new)
            column.lerp_(squared.mean(dim=-2), new)
            left = (row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
            update = gradient * left * column.rsqrt().unsqueeze(-2)
        size = update.square().mean().sqrt_()
        update.div_((size / group["clip"]).clamp_(min=1.0))
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-group["lr"])
