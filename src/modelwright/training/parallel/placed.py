"""A model as the processes of a world hold it: alone, copied (DDP), or cut into shards.

The objective calls whatever it likes of a model, while DDP and FSDP work by hooks on ``forward``.
So what they are given is a small module whose forward is the objective's loss; the model inside
keeps its own names, and its state is that of a model on one process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelwright import checkpoint
from modelwright.checkpoint import Piece, Region
from modelwright.checkpoint.loading import Wanted
from modelwright.errors import MachineError, ModelwrightError
from modelwright.training.parallel import context
from modelwright.training.parallel.world import SERIAL, World
from modelwright.types import Batch, Objective

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel


class Placed:
    """A model on one process; the other forms change what differs.

    ``optimizable`` is what optimisers are built for: a module whose ``named_parameters`` are plain
    tensors that this process updates, under the names of the whole model's.
    """

    sharded = False

    def __init__(self, model: nn.Module, objective: Objective, world: World = SERIAL) -> None:
        self.model, self.objective, self.world = model, objective, world
        self.optimizable: nn.Module = model
        self.parameters = list(model.parameters())  # walking through the modules takes a while
        if world.context > 1:
            context.check(model, objective)

    def cut(self, batch: Batch) -> Batch:
        """This process's positions of a micro-batch, where others have its rows as well."""
        if self.world.context == 1:
            return batch
        return context.cut(batch, self.objective, self.world, self.parameters[0].device)

    def loss(self, batch: Batch, *, last: bool = True) -> Tensor:
        """The summed loss of this process's part of a micro-batch, 0 for a batch of count 0.

        Its gradient is scaled so that averaging over the processes gives the sum. ``last`` says
        that no other micro-batch of the step follows.
        """
        del last
        return self.objective.loss(self.model, batch)

    def evaluated(self, batch: Batch) -> Tensor:
        """The summed loss, where no gradient is wanted."""
        return self.objective.loss(self.model, batch)

    def clip(self, limit: float) -> Tensor:
        """Scale the gradient to a norm of at most ``limit``; return its norm before."""
        norm = total_norm([p.grad for p in self.parameters if p.grad is not None])
        if math.isfinite(limit):
            nn.utils.clip_grads_with_norm_(self.parameters, limit, norm, foreach=True)
        return norm

    def hand_over(self) -> None:
        """Give the gradients to the tensors that the optimisers update."""

    def plain(self) -> nn.Module:
        """A model that the first process may use by itself; every process must call this."""
        return self.model

    kept: Sequence[str] | None = None  # names of what a checkpoint holds of the model; None: all

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the model."""
        whole = self.model.state_dict()
        return whole if self.kept is None else {name: whole[name] for name in self.kept}

    wanted: Wanted | None = None  # which parts of a checkpoint's tensors to read; None: all

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters of a checkpoint, read as ``wanted`` says."""
        self.model.load_state_dict(tensors)

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Take the state of a model that is not placed."""
        self.model.load_state_dict(state)

    def save(
        self,
        folder: Path,
        step: int,
        groups: Mapping[str, Mapping[str, Tensor]],
        documents: Mapping[str, bytes],
    ) -> None:
        """Write a checkpoint; with several processes all call this, and all see one outcome."""
        world = self.world
        if world.alone:
            checkpoint.save(folder, step, {"model": self.state(), **groups}, documents)
            return
        if self.sharded:
            checkpoint.save_sharded(folder, step, self.pieces(groups), documents, world)
            return
        problem = ""
        if world.is_main:
            try:
                tensors = {"model": self.state(), **groups}
                checkpoint.save(folder, step, tensors, documents)
            except ModelwrightError as error:
                problem = str(error) or "it failed"
        if said := world.gather(problem)[0]:
            raise MachineError(said)

    def pieces(self, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Piece]]:
        """The model's state and what is beside it, as this process holds them."""
        state = {"model": self.model.state_dict(), **groups}
        main = self.world.is_main
        return {
            group: {n: Piece(t, Region.all(t.shape), main) for n, t in named.items()}
            for group, named in state.items()
        }

    # The two by which an optimiser that needs whole matrices (Muon) gets and gives them.

    def whole(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        """The whole of which ``part`` lies here as ``parameter`` does; collective."""
        del parameter
        return part

    def part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """What lies here of a whole tensor."""
        del parameter
        return whole


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all elements of tensors of one device, a scalar; 0 of none."""
    if not tensors:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm


class Loss(nn.Module):
    """The objective's loss as a forward pass."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        """The summed loss of a batch."""
        return self.objective.loss(self.model, batch)


class Replicated(Placed):
    """A copy of the model on every process; gradients are averaged by DDP."""

    def __init__(self, model: nn.Module, objective: Objective, world: World) -> None:
        super().__init__(model, objective, world)
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

        # Not a static graph: that excludes leaving out the exchange between micro-batches.
        self.root: DistributedDataParallel = DistributedDataParallel(
            Loss(model, objective), gradient_as_bucket_view=True
        )
        self.warm = False

    def loss(self, batch: Batch, *, last: bool = True) -> Tensor:
        """As on one process; gradients are exchanged with the last micro-batch."""
        if not self.warm:
            self._warm_up(batch)
        self.root.require_backward_grad_sync = last
        scale = self.world.parts if batch.count else 0.0
        loss: Tensor = self.root(batch) * scale
        return loss

    def _warm_up(self, batch: Batch) -> None:
        """One pass that changes nothing.

        DDP lays its buckets out anew after the first exchange, in the order in which gradients
        came. With more than two processes the layout decides the order of additions, hence bits:
        a resumed training must begin with the layout that an undisturbed one has.
        """
        state = torch.get_rng_state()
        (self.root(batch) * 0.0).backward()
        self.model.zero_grad(set_to_none=True)
        torch.set_rng_state(state)
        self.warm = True
