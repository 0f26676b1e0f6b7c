"""Inception v3: the published shapes, and the second head that only training uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modelwright.errors import ModelwrightError
from modelwright.models import inception
from modelwright.objectives import classification
from modelwright.types import Batch

# Channels and side after each block, for 299 x 299 pixels (arXiv:1512.00567, table 1).
MADE = {
    **{"5b": (256, 35), "5c": (288, 35), "5d": (288, 35), "6a": (768, 17), "6b": (768, 17)},
    **{"6c": (768, 17), "6d": (768, 17), "6e": (768, 17), "7a": (1280, 8), "7b": (2048, 8)},
    "7c": (2048, 8),
}


class Codec:
    labels = ("a", "b", "c")
    ragged: tuple[str, ...] = ()


def test_blocks_make_the_published_shapes() -> None:
    with torch.device("meta"):
        model = inception.Config(classes=1000).build().eval()
        image = torch.zeros(1, 299, 299, 3)
    found: dict[str, Any] = {}
    for name, block in model.mixed.items():
        block.register_forward_hook(
            lambda _, __, y, name=name: found.__setitem__(name, (y.shape[1], y.shape[2]))
        )
    assert model(image).shape == (1, 1000)
    assert found == MADE


def test_training_counts_the_second_head_and_evaluation_leaves_it_out() -> None:
    torch.manual_seed(0)
    config = inception.Config(
        3, (299, 299), width=0.04, auxiliary=True, dropout=0.0, auxiliary_weight=0.3
    )
    model = config.build()
    x, label = torch.randn(2, 299, 299, 3), torch.tensor([1, 2])
    logits, second = model.train()(x)
    objective = classification.Objective(Codec())  # type: ignore[arg-type]
    batch = Batch({"features": x}, {"label": label}, 2)
    costs = [F.cross_entropy(y, label, reduction="sum") for y in (logits, second)]
    torch.testing.assert_close(objective.loss(model, batch), costs[0] + 0.3 * costs[1])
    objective.loss(model, batch).backward()
    assert all(p.grad is not None for p in model.parameters())
    found = model.eval()(x)
    assert isinstance(found, torch.Tensor)
    alone = F.cross_entropy(found, label, reduction="sum")
    torch.testing.assert_close(objective.loss(model, batch), alone)
    assert np.isfinite(alone.item())


@pytest.mark.parametrize(("side", "auxiliary"), [(74, False), (298, True)])
def test_images_that_are_too_small_are_refused(side: int, auxiliary: bool) -> None:
    with pytest.raises(ModelwrightError, match=f"model.image: {side} x 320, .* at least"):
        inception.Config(3, (side, 320), auxiliary=auxiliary)
    least = inception.Config(3, (side + 1, side + 1), auxiliary=auxiliary, width=0.02)
    model = least.build().train()
    assert model(torch.randn(2, side + 1, side + 1, 3)) is not None
