"""The mean of the true frames, and a dense layer."""

from __future__ import annotations

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.bag_of_frames import BagOfFrames


def build(net: Net, model: BagOfFrames, given: dict[str, Tensor]) -> Tensor:
    """The sum over true frames by their number."""
    ops = net.ops
    true = ops.cast(ops.expand_dims(given["seen"], -1), "float32")
    number = ops.cast(ops.expand_dims(given["lengths"], -1), "float32")
    return net.dense(model.output, ops.sum(given["frames"] * true, axis=1) / number)
