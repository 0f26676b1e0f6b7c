"""A micro-batch cut along its texts: processes of one group have its rows, each some positions.

What looks at neighbours is done before the cut: targets are those of the whole stream, and a
``Slice`` brings along the positions in their documents and the tokens before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models.slices import Slice
from modelwright.types import Batch, Objective

if TYPE_CHECKING:
    from modelwright.training.parallel.world import World


def check(model: nn.Module, objective: Objective) -> None:
    """Refuse what cannot be cut along its texts.

    Raises:
        ModelwrightError: the model knows no slices, or the objective looks at several positions
            at once.
    """
    if not getattr(model, "sliceable", False):
        kind = type(model).__module__.rpartition(".")[2]
        raise ModelwrightError(
            f"parallel.context: {type(model).__name__} ({kind}) cannot be cut along its texts, a "
            "decoder without learned prompts can; leave context out"
        )
    if not hasattr(objective, "at") or getattr(objective, "teaching", None) is not None:
        raise ModelwrightError(
            "parallel.context: only the objective next_token, without a teacher, learns every "
            "position by itself; leave context out"
        )


def cut(batch: Batch, objective: Any, world: World, device: torch.device) -> Batch:
    """This process's positions of a micro-batch that ``world.context`` processes share.

    Args:
        batch: inputs ``tokens`` (B, T) and ``starts``, as the objective collates them.
        objective: its ``at`` gives the targets of some positions.
        world: connected, with ``context`` above 1.
        device: where the model works.
    """
    tokens = batch.inputs["tokens"].flatten()
    starts = batch.inputs["starts"]
    place = world.rank % world.context
    assert world.context_group is not None  # noqa: S101 - made by ``World.connect``
    own, part = Slice.of(tokens.to(device), starts, place, world.context, world.context_group)
    learned: Batch = objective.at(batch, part.rows.cpu())
    return Batch(
        {"tokens": own[None], "starts": part},
        learned.targets,
        learned.count,
        learned.bytes,
        computed=len(own),
    )
