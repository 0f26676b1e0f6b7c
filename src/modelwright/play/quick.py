"""A network as it plays best on a CPU: norms folded into convolutions, in bfloat16 where it pays.

For games of a network with itself, where most of the time goes into judging positions. Its answers
differ from the model's by rounding: what is measured and served is judged by the model itself.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modelwright.models.images import ConvNorm
from modelwright.processor import cpu_flags

MULTIPLE = 16  # positions: of every size of a batch the convolutions are prepared anew


class Quick:
    """A copy of a board network as it is now, for positions on the way.

    Where its norms are of batches they are folded, and its numbers are bfloat16 if the processor
    multiplies them; with other norms bfloat16 takes longer.
    """

    def __init__(self, model: nn.Module) -> None:
        self.device = next(model.parameters()).device
        self.model = copy.deepcopy(model).eval()
        self.folded = _fold(self.model)
        narrow = self.folded and self.device.type == "cpu" and "avx512_bf16" in cpu_flags()
        self.kind = torch.bfloat16 if narrow else torch.float32
        self.model = self.model.to(self.kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of all moves and the value, float32 (n, moves + 1), of planes (n, R, C, P)."""
        count = len(features)
        padded = np.zeros((-(-count // MULTIPLE) * MULTIPLE, *features.shape[1:]), np.float32)
        padded[:count] = features
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(padded).to(self.device, self.kind))
        found: NDArray[np.float32] = outputs[:count].float().cpu().numpy()
        return found


def _fold(model: nn.Module) -> bool:
    """Fold norms of batches into the convolutions before them; whether all its norms were such."""
    for part in model.modules():
        if isinstance(part, ConvNorm) and isinstance(part.norm, nn.BatchNorm2d):
            part.conv = fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()
    return not any(isinstance(part, nn.GroupNorm) for part in model.modules())
