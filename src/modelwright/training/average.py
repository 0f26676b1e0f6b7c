"""An exponential moving average of the parameters: often the better model, for little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modelwright.errors import CorruptError

STATISTICS = ("running_mean", "running_var")  # of a batch norm, which belong to its weights


class Average:
    """The running mean e of a model's trainable parameters W, one update a step.

    e <- d e + (1 - d) W with d = min(decay, n / (9 + n)) at update n, from 0: the first one
    copies, and what came early is forgotten quickly, so that a short training has an average
    of its better parameters too. Before the first update there is no average, and the
    parameters stand for themselves. The running statistics of batch norms are averaged with them:
    those of the last weights are wrong for the mean of many. No other buffer is.

    Args:
        model: whose parameters are averaged.
        decay: of the average; 0.999 remembers about a thousand steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.named: list[tuple[str, Tensor]] = [
            (n, p) for n, p in model.named_parameters() if p.requires_grad
        ]
        self.named += [
            (n, b) for n, b in model.named_buffers() if n.rpartition(".")[2] in STATISTICS
        ]
        self.values = [p.detach().clone() for _, p in self.named]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Every parameter with its average, if there is one yet."""
        if not self.updates:
            return []
        return [(p, e) for (_, p), e in zip(self.named, self.values, strict=True)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        new = 1 - min(self.decay, self.updates / (9 + self.updates))
        torch._foreach_lerp_(self.values, [p.detach() for _, p in self.named], new)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in place of the parameters; afterwards these are what they were."""
        with replaced(self.pairs):
            yield

    def state(self) -> dict[str, Tensor]:
        """Tensors named ``parameter:average``, and the number of updates, for a checkpoint."""
        named = {f"{n}:average": e for (n, _), e in zip(self.named, self.values, strict=True)}
        return {**named, ":updates": torch.tensor(self.updates)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        Raises:
            CorruptError: the tensors are those of another model.
        """
        mine = self.state()
        if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in tensors.items()}:
            odd = sorted(mine.keys() ^ tensors.keys()) or ["a tensor of another shape"]
            raise CorruptError(
                f"checkpoint: average of other parameters ({odd[0]}); "
                "the recipe's model differs from the one that was saved: set it as it was"
            )
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])
        self.updates = int(tensors[":updates"])


@contextmanager
def replaced(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[dict[int, Tensor]]:
    """Other values in some parameters, given as (parameter, value); afterwards their own again.

    Yields:
        The parameters' own values, by the parameter's ``id``.
    """
    pairs = list(pairs)
    own = {id(p): p.detach().clone() for p, _ in pairs}
    with torch.no_grad():
        for p, value in pairs:
            p.copy_(value)
    try:
        yield own
    finally:
        with torch.no_grad():
            for p, _ in pairs:
                p.copy_(own[id(p)])
