"""Linear head and cross-entropy in one pass over chunks, so that logits never exist whole.

For a chunk of hidden states H (n, d), head W (V, d) and targets y:
    z = H W^T,  s = c tanh(z / c)  (or s = z without a cap),
    loss = sum_i logsumexp(s_i) - s_i[y_i],
    dz = (softmax(s) - onehot(y)) * (1 - (s / c)^2),  dH = dz W,  dW += dz^T H.
The gradient is computed beside the loss while the chunk is still in the cache; the backward
pass only scales it. That of a frozen head, a third of the work, is left out. The logits of a chunk
take 4 * n * V bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modelwright.kernels import likelihood as kernel

CHUNK_BYTES = 4 << 20  # a chunk of float32 logits: stays in a second-level cache or near it


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
        w = weight.to(hidden.dtype)
        fast = kernel.fits(hidden)
        rows = _rows(len(weight), fast=fast)
        grad_hidden = torch.empty_like(hidden)
        trained = ctx.needs_input_grad[1]
        grad_weight = _zeros(weight, trained=trained)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            h, y = hidden[start : start + rows], targets[start : start + rows, None]
            if fast:
                dz = h @ w.T
                total += kernel.likelihood_(dz, y.contiguous(), cap)
            else:
                meant, sums, dz = _by_hand(h, w, y, cap)
                total -= meant.sum()
                total += sums.sum()
            torch.mm(dz, w, out=grad_hidden[start : start + rows])
            if trained:
                _add(grad_weight, dz, h, fast=fast)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scaled = None
        if ctx.needs_input_grad[1]:
            scaled = (grad_weight * grad).to(ctx.weight_dtype)
        return (grad_hidden * grad).to(grad_hidden.dtype), scaled, None, None


class _TokenLogProbabilities(torch.autograd.Function):
    """The same for every row: how much each counts is known in the backward pass only.

    dH is kept before it is scaled by row; dW takes the logits a second time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
        w = weight.to(hidden.dtype)
        wanted = ctx.needs_input_grad[0]
        grad_hidden = torch.empty_like(hidden) if wanted else hidden.new_empty(0)
        found = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for at, losses, dz in _chunks(hidden, w, targets, cap):
            found[at] = -losses
            if wanted:
                torch.mm(dz, w, out=grad_hidden[at])
        ctx.save_for_backward(hidden, weight, targets, grad_hidden)
        ctx.cap = cap
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, grad_hidden = ctx.saved_tensors
        by = -grad[:, None]
        for_hidden = for_weight = None
        if ctx.needs_input_grad[0]:
            for_hidden = (grad_hidden * by).to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            total = _zeros(weight, trained=True)
            fast = kernel.fits(hidden)
            for at, _, dz in _chunks(hidden, weight.to(hidden.dtype), targets, ctx.cap):
                _add(total, dz, (hidden[at] * by[at]).to(dz.dtype), fast=fast)
            for_weight = total.to(weight.dtype)
        return for_hidden, for_weight, None, None


def _chunks(
    hidden: Tensor, w: Tensor, targets: Tensor, cap: float
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, their losses (n,) and the gradient of these by the logits (n, V), chunk by chunk."""
    fast = kernel.fits(hidden)
    rows = _rows(len(w), fast=fast)
    for start in range(0, len(hidden), rows):
        at = slice(start, start + rows)
        h, y = hidden[at], targets[at, None]
        if fast:
            dz = h @ w.T
            yield at, kernel.likelihoods_(dz, y.contiguous(), cap), dz
        else:
            meant, sums, dz = _by_hand(h, w, y, cap)
            yield at, (sums - meant)[:, 0], dz


def _by_hand(h: Tensor, w: Tensor, y: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel does: s_y and logsumexp(s) (n, 1) in float32, dz (n, V) in h's type."""
    s = (h @ w.T).float()
    if cap:
        t = s.div_(cap).tanh_()
        slope = t.square().neg_().add_(1.0)
        s = t.mul_(cap)
    meant = s.gather(1, y)
    top = s.amax(dim=1, keepdim=True)
    p = s.sub_(top).exp_()
    norm = p.sum(dim=1, keepdim=True)
    sums = norm.log() + top
    p.div_(norm)
    p.scatter_add_(1, y, torch.full_like(norm, -1.0))
    return meant, sums, (p.mul_(slope) if cap else p).to(h.dtype)


def _zeros(weight: Tensor, *, trained: bool) -> Tensor:
    """Where the gradient of a head is summed; nothing for a frozen one."""
    shape = weight.shape if trained else (0,)
    return torch.zeros(shape, dtype=torch.float32, device=weight.device)


def _add(into: Tensor, dz: Tensor, h: Tensor, *, fast: bool) -> None:
    """Add dz^T h to ``into`` (V, d), in float32; where all are, with no product in between."""
    if fast:
        kernel.accumulate_(into, dz.T @ h)
    elif dz.dtype == into.dtype:
        into.addmm_(dz.T, h)
    else:
        into += dz.T @ h


def _rows(vocabulary: int, *, fast: bool) -> int:
    """Rows of a chunk.

    The kernel reads a row once, so its chunks may be large, which the products like. Without it 128
    rows are the fewest: the product for the weight sums over them, and at 64 of 50,257 classes the
    whole takes 1.13 times as long, while 256 gain nothing and take twice the memory.
    """
    if fast:
        return max(512, 2 * CHUNK_BYTES // (2 * vocabulary))
    return max(128, CHUNK_BYTES // (4 * vocabulary))


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Summed negative log-likelihood, in nats, of ``targets`` (n,) under a softly capped head.

    ``hidden`` is (n, d), ``weight`` is (V, d); products run in the dtype of autocast when it is
    on, sums in float32.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    if not torch.is_grad_enabled():
        return _likelihood_only(hidden, weight, targets, cap)
    with torch.autocast(hidden.device.type, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, cap)  # type: ignore[no-untyped-call]
    return loss


def token_log_probabilities(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Log p of each of ``targets`` (n,), in nats, float32 (n,); see ``linear_cross_entropy``."""
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    with torch.autocast(hidden.device.type, enabled=False):
        found: Tensor = _TokenLogProbabilities.apply(hidden, weight, targets, cap)  # type: ignore[no-untyped-call]
    return found


def smoothed_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, smoothing: float
) -> Tensor:
    """The same without a cap, ``smoothing`` e of the probability spread over the vocabulary.

    Of scores s = W h the mean of -log p is logsumexp(s) - mean(s), so that the smoothed loss is
    -log p(y) + e (s_y - mean(s)) = -log p(y) + e h . (w_y - mean of W's rows).
    """
    loss = linear_cross_entropy(hidden, weight, targets, 0.0)
    if not smoothing:
        return loss
    with torch.autocast(hidden.device.type, enabled=False):
        rows = hidden.float()
        chosen = (rows * torch.nn.functional.embedding(targets, weight.float())).sum()
        return loss + smoothing * (chosen - rows.sum(0) @ weight.float().mean(0))


def _likelihood_only(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    w = weight.to(hidden.dtype)
    rows = _rows(len(weight), fast=False)
    for start in range(0, len(hidden), rows):
        h, y = hidden[start : start + rows], targets[start : start + rows]
        with torch.autocast(hidden.device.type, enabled=False):
            s = (h @ w.T).float()
        s = s.div_(cap).tanh_().mul_(cap) if cap else s
        total += torch.nn.functional.cross_entropy(s, y, reduction="sum")
    return total
