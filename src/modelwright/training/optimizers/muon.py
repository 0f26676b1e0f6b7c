"""Muon: momentum whose update is orthogonalised, for the matrices inside the blocks.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Coefficients of the quintic iteration that pushes singular values towards 1 fastest.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_OBLONG, _ANEW = 2, 3  # see _by_gram: from this ratio of the sides on; iterations between
FIRST_MOMENTUM = 0.85  # where a momentum that warms up begins

# Names of what reads the data and of what makes the answer begin so; Muon is for what lies between.
_OUTER = ("embedding.", "output.", "head.", "stem.")

Orthogonalise = Callable[[Tensor], Tensor]  # (n, rows, columns) -> the same shape


def inner_matrices(named: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that Muon is for: matrices, and filters of planes that mix their inputs."""
    return [
        p
        for name, p in named.items()
        if (p.ndim == 2 or (p.ndim == 4 and p.shape[1] > 1)) and not name.startswith(_OUTER)
    ]


class Placement(Protocol):
    """Where matrices are cut over processes: how a whole is collected, and what lies here of it."""

    sharded: bool

    def whole(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        """The whole of which ``part`` lies here as ``parameter`` does; collective."""
        ...

    def part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """What lies here of a whole tensor."""
        ...


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """Approximate U V^T of the singular value decomposition of matrices (n, rows, columns).

    Newton-Schulz: X <- a X + (b A + c A^2) X with A = X X^T, after scaling to norm <= 1.
    Products and their sums are one operation each, which saves a third of the memory traffic.
    """
    a, b, c = _QUINTIC
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT.contiguous() if tall else update
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    if x.shape[-1] >= _OBLONG * x.shape[-2]:
        for first in range(0, iterations, _ANEW):
            x = _by_gram(x, min(_ANEW, iterations - first))
        return x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def _by_gram(x: Tensor, iterations: int) -> Tensor:
    """The same iterations on the small A alone: with P = a I + b A + c A^2, A <- P A P.

    X becomes the product of all P with X: two products with the long side rather than two an
    iteration. All P commute. Rounding grows with every iteration without looking at X, so A is
    made anew after three: then the singular values are those of the plain form, in bfloat16 too,
    at two thirds of its time for matrices four times as long as wide.
    """
    a, b, c = _QUINTIC
    gram = x @ x.mT
    product: Tensor | None = None
    for left in range(iterations, 0, -1):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if left > 1:
            gram = polynomial @ gram @ polynomial
    return x if product is None else product @ x


class Muon(torch.optim.Optimizer):
    """Momentum, then each matrix's update orthogonalised (Nesterov form).

    m <- momentum * m + (1 - momentum) * g, u = (1 - momentum) * g + momentum * m,
    W <- W - rate * max(1, rows / columns)^0.5 * orthogonalise(u), with decoupled weight decay.
    Matrices of one shape are orthogonalised together, which keeps small products efficient.
    The filters of a convolution (outputs, inputs, ...) are a matrix (outputs, inputs · ...).

    In a job of several processes that hold the same gradients, or parts of them that a
    ``placement`` can collect, each process orthogonalises its share of the matrices and one
    all-gather hands every result to all.

    Args:
        parameters: matrices (rows, columns) and filters, or groups of them with their own ``lr``.
        lr: the rate.
        momentum: of the running mean of gradients.
        weight_decay: decoupled, W <- (1 - rate * weight_decay) W.
        precision: of the Newton-Schulz products.
        momentum_warmup: steps over which the momentum rises from 0.85; 0: none.
        orthogonalise: what makes an update orthogonal; a compiled form may take its place.
        placement: how matrices are cut over processes; None: every process has them whole.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
        *,
        momentum_warmup: int = 0,
        orthogonalise: Orthogonalise = orthogonalise,
        placement: Placement | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision
        self.momentum_warmup = momentum_warmup
        self.orthogonalise = orthogonalise
        self.placement = placement

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not used."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                updates = self._nesterov(parameters, group)
                if self.placement is not None:
                    updates = list(map(self.placement.whole, parameters, updates))
                self._apply(parameters, self._orthogonal(updates), group)

    def _nesterov(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> list[Tensor]:
        """Move the momenta on; what is to be orthogonalised."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in parameters]
        momentum = self._momentum(parameters, group["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, momenta, momentum))

    def _momentum(self, parameters: list[nn.Parameter], last: float) -> float:
        """The momentum of this step; with a warm-up the steps are counted, in the state."""
        if not self.momentum_warmup:
            return last
        for p in parameters:
            state = self.state[p]
            state["step"] = state.get("step", torch.zeros(())) + 1
        done = float(self.state[parameters[0]]["step"]) - 1
        share = min(1.0, done / self.momentum_warmup)
        return FIRST_MOMENTUM + share * (last - FIRST_MOMENTUM) if last > FIRST_MOMENTUM else last

    def _orthogonal(self, updates: list[Tensor]) -> list[Tensor]:
        """Every update made orthogonal, divided over the processes of a job."""
        matrices = [update.flatten(1) for update in updates]
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if processes == 1:
            done = self._stacked(matrices)
        else:
            done = self._shared_out(matrices, dist.get_rank(), processes)
        return [found.view_as(update) for found, update in zip(done, updates, strict=True)]

    def _stacked(self, updates: Sequence[Tensor]) -> list[Tensor]:
        """Every update made orthogonal here, those of one shape in one stack."""
        by_shape: dict[torch.Size, list[int]] = {}
        for i, update in enumerate(updates):
            by_shape.setdefault(update.shape, []).append(i)
        done: dict[int, Tensor] = {}
        for places in by_shape.values():
            stack = torch.stack([updates[i] for i in places]).to(self.precision)
            results = self.orthogonalise(stack).to(updates[places[0]].dtype)
            done.update(zip(places, results.unbind(), strict=True))
        return [done[i] for i in range(len(updates))]

    def _shared_out(self, updates: list[Tensor], rank: int, processes: int) -> list[Tensor]:
        """This process's share made orthogonal, the other shares taken from their processes.

        Dealt out round-robin from the costliest on, so that the shares take about equally long.
        Every process sends as much as the largest share holds: an all-gather wants equal sizes.
        """
        order = sorted(range(len(updates)), key=lambda i: (-_cost(updates[i]), i))
        shares = [order[r::processes] for r in range(processes)]
        largest = max(sum(updates[i].numel() for i in share) for share in shares)
        mine = updates[0].new_zeros(largest)
        results = self._stacked([updates[i] for i in shares[rank]])
        if results:
            flat = torch.cat([result.reshape(-1) for result in results])
            mine[: flat.numel()] = flat
        every = mine.new_empty(processes, largest)
        dist.all_gather(list(every.unbind()), mine)  # into views of ``every``
        done: dict[int, Tensor] = {}
        for share, sent in zip(shares, every.unbind(), strict=True):
            sizes = [updates[i].numel() for i in share]
            parts = sent[: sum(sizes)].split_with_sizes(sizes)
            done.update((i, p.view_as(updates[i])) for i, p in zip(share, parts, strict=True))
        return [done[i] for i in range(len(updates))]

    def _apply(
        self, parameters: list[nn.Parameter], updates: list[Tensor], group: Mapping[str, Any]
    ) -> None:
        values: list[Tensor] = list(parameters)
        if group["weight_decay"]:
            torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        sides = [(len(u), u.numel() // len(u)) for u in updates]
        scales = [-group["lr"] * max(1.0, rows / columns) ** 0.5 for rows, columns in sides]
        if self.placement is not None:
            updates = list(map(self.placement.part, parameters, updates))
        torch._foreach_add_(values, torch._foreach_mul(updates, scales))


def _cost(matrix: Tensor) -> int:
    """Of one orthogonalisation, up to a factor: short side squared times long side."""
    short, long = sorted(matrix.shape)
    return short * short * long
