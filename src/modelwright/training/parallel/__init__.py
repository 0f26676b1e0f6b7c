"""One training on several processes: who they are, what each holds, and who was lost."""

from __future__ import annotations

import torch
from torch import nn

from modelwright.training.parallel.placed import Placed, Replicated
from modelwright.training.parallel.sharded import Sharded
from modelwright.training.parallel.world import SERIAL, World, is_connection_error
from modelwright.types import Objective

__all__ = ["SERIAL", "Placed", "World", "is_connection_error", "place"]


def place(
    model: nn.Module,
    objective: Objective,
    world: World = SERIAL,
    *,
    shard: str = "none",
    precision: torch.dtype = torch.float32,
) -> Placed:
    """Put a model, already on its device and the same on every process, into a connected world."""
    if world.alone:
        return Placed(model, objective, world)
    if shard == "none" and world.tensor == 1:
        return Replicated(model, objective, world)
    return Sharded(model, objective, world, shard, precision)
