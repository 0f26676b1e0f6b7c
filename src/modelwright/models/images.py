"""Parts that image families share: planes from pixels, norms, convolutions, dropped paths.

Batch normalisation (arXiv:1502.03167) makes the rows of a batch see each other while training:
a step cut into micro-batches normalises by other statistics, so law 2 (accumulation changes
nothing) does not hold with it, and processes that share a batch normalise by their own rows.
``norm: group`` (arXiv:1803.08494) has neither trouble, at some accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modelwright.errors import ModelwrightError
from modelwright.kernels import batch_norm
from modelwright.kernels.batch_norm import Act
from modelwright.models.model import ModelConfig, outputs_of

Norm = Literal["batch", "group"]
GROUPS = 32  # of a group norm, at most
SMALL_IMAGE = 64  # up to this side an image is not made smaller before the first block


def image_fields(codec: Any) -> dict[str, Any]:
    """``image`` (height, width), ``channels`` and ``classes`` of a codec that gives pixels.

    Raises:
        ModelwrightError: what the codec gives is no image.
    """
    shape = tuple(codec.shape)
    if len(shape) not in (2, 3) or shape[0] == 1:
        raise ModelwrightError(
            "model.family: this family reads images of shape (height, width[, channels]), the data"
            f" have {shape}; use the family mlp"
        )
    channels = shape[2] if len(shape) == 3 else 1
    return {"image": shape[:2], "channels": channels, "classes": outputs_of(codec)}


def planes(features: Tensor, channels: int) -> Tensor:
    """Pixels (B, H, W[, C]) as planes (B, C, H, W), the same memory: channels last.

    Raises:
        ModelwrightError: another number of channels or of dimensions.
    """
    pixels = features.unsqueeze(-1) if features.ndim == 3 else features
    if pixels.ndim != 4 or pixels.shape[-1] != channels:
        raise ModelwrightError(
            f"features: shape {tuple(features.shape)}, but the model reads images (B, height,"
            f" width, {channels}); give model.channels as the data have them"
        )
    return pixels.permute(0, 3, 1, 2)


def plane_means(x: Tensor) -> Tensor:
    """The mean of every plane, (B, C) of (B, C, H, W).

    Taken of rows of channels, so that its gradient lies channels last as x does: that of a mean
    over the last two dimensions does not, and the sums of residual blocks would pass it on.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def check_image(image: Sequence[int], least: int = 1, multiple: int = 1) -> tuple[int, int]:
    """Height and width, at least ``least`` and multiples of ``multiple``.

    Raises:
        ModelwrightError: they are not.
    """
    height, width = image
    if min(height, width) < least or height % multiple or width % multiple:
        more = f" and multiples of {multiple}" if multiple > 1 else ""
        raise ModelwrightError(
            f"model.image: {height} x {width}, but this model needs sides of at least"
            f" {least}{more}; resize the images or choose other fields"
        )
    return height, width


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose running statistics take in finite numbers only.

    A step that is refused for a loss that is not finite has been computed all the same; with
    torch's own layer its statistics would stay NaN and every evaluation after it as well.
    """

    def forward(self, x: Tensor, act: Act = "none", added: Tensor | None = None) -> Tensor:
        """act(norm(x) + added): by the batch in training, else by the running statistics.

        Args:
            x: (B, C, H, W).
            act: what is done to the sum; in one pass with the norm where a kernel can.
            added: (B, C, H, W), or None.

        Raises:
            ModelwrightError: in training, a batch with one number for a channel.
        """
        statistics = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if not self.training:
            y = F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
            return batch_norm.activated(y, act, added)
        if x.numel() == x.shape[1]:
            raise ModelwrightError(
                "train.batch: batch norms need more than one number of every channel, and one row"
                " of this size has one; raise train.batch, or set model.norm to group"
            )
        momentum = 0.1 if self.momentum is None else self.momentum
        if batch_norm.fits(x, act, added, self.weight, self.bias, *statistics):
            y = batch_norm.batch_norm(
                x,
                self.weight,
                self.bias,
                statistics,
                eps=self.eps,
                momentum=momentum,
                act=act,
                added=added,
            )
        else:
            y = batch_norm.activated(self._by_operators(x, statistics, momentum), act, added)
        with torch.no_grad():
            self.get_buffer("num_batches_tracked").add_(1)
        return y

    def _by_operators(
        self, x: Tensor, statistics: tuple[Tensor, Tensor], momentum: float
    ) -> Tensor:
        new_mean, new_variance = (kept.clone() for kept in statistics)
        y = F.batch_norm(
            x, new_mean, new_variance, self.weight, self.bias, True, momentum, self.eps
        )
        with torch.no_grad():
            sound = new_mean.isfinite() & new_variance.isfinite()
            for kept, new in zip(statistics, (new_mean, new_variance), strict=True):
                kept.copy_(torch.where(sound, new, kept))
        return y


def norm_layer(kind: Norm, channels: int, eps: float = 1e-5) -> nn.Module:
    """A norm over planes of ``channels`` channels."""
    if kind == "batch":
        return BatchNorm(channels, eps=eps)
    most = max(1, min(GROUPS, channels // 4))  # groups of a channel or two have too few numbers
    groups = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=eps)


def normed(norm: nn.Module, x: Tensor, act: Act, added: Tensor | None = None) -> Tensor:
    """act(norm(x) + added) for planes x and added (B, C, H, W)."""
    if norm.training and isinstance(norm, BatchNorm):
        made: Tensor = norm(x, act, added)
        return made
    return batch_norm.activated(norm(x), act, added)


class ConvNorm(nn.Module):
    """A convolution without bias and its norm, of ``same`` size at stride 1 unless padded so."""

    def __init__(
        self,
        read: int,
        made: int,
        kernel: int | tuple[int, int],
        *,
        norm: Norm = "batch",
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (sides[0] // 2, sides[1] // 2) if padding is None else padding
        self.conv = nn.Conv2d(read, made, sides, stride, around, bias=False)
        self.norm = norm_layer(norm, made, eps)

    def forward(self, x: Tensor, act: Act = "none", added: Tensor | None = None) -> Tensor:
        """act(norm(conv(x)) + added), planes (B, read, H, W) to (B, made, H', W')."""
        return normed(self.norm, self._convolved(x), act, added)

    def _convolved(self, x: Tensor) -> Tensor:
        conv = self.conv
        if conv.kernel_size == (1, 1) and conv.stride != (1, 1):
            # The same pixels, taken first: oneDNN's own way back through such a convolution over
            # channels-last planes writes beside its memory on several threads (torch 2.13).
            # Taken by a pooling of one pixel: the gradient of a slice would not be channels-last.
            return F.conv2d(F.avg_pool2d(x, 1, conv.stride), conv.weight)
        found: Tensor = conv(x)
        return found


class DropPath(nn.Module):
    """Whole rows of a branch set to zero in training, the rest scaled up (arXiv:1603.09382)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Keep each row of x (B, ...) with probability 1 - share, divided by it."""
        if not self.training or self.share == 0:
            return x
        kept = x.new_empty(len(x), *(1,) * (x.ndim - 1)).bernoulli_(1 - self.share)
        return x * kept / (1 - self.share)


def he_initialised(module: nn.Module) -> None:
    """Every convolution normal of variance 2 / fan-out (arXiv:1502.01852), its bias zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@lru_cache(maxsize=64)
def _forward_flops(key: str, config: ModelConfig, shapes: tuple[tuple[str, Any], ...]) -> float:
    del key
    with torch.device("meta"):
        model = config.build().eval()
        given = {name: torch.zeros(1, *shape) for name, shape in shapes}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(**given)
    return float(counter.get_total_flops())


def counted_flops(config: ModelConfig, shapes: Mapping[str, Sequence[int]]) -> float:
    """FLOPs of forward and backward for one example, counted layer by layer on no memory.

    Args:
        config: of the model that is built on the meta device.
        shapes: of each input of ``forward``, without the batch.

    Returns:
        Three times the multiplications and additions of the products and convolutions of a
        forward pass: the backward pass has two products for each.
    """
    given = tuple((name, tuple(shape)) for name, shape in shapes.items())
    return 3.0 * _forward_flops(config.family, config, given)


def parameter_count(config: ModelConfig) -> int:
    """The number of parameters of a model, built on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build().parameters())
