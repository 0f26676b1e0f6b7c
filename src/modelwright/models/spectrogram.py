"""Sound to one label, seen as a picture: convolutions over time and pitch, then over time.

A voice of a shorter throat has the same vowels some bands higher. A kernel that moves along the
bands, and is halved with them, finds them there too, which a model that has a weight for each band
must learn from speakers. So this is for voices that the train part has not.

    x_0 = frames, one channel
    x_i = silu(norm(conv 3x3 of x_{i-1})): bands halved, and time too where i is odd
    h_t = silu(norm(conv 3 over time of all channels and bands)); h = h + silu(norm(conv 5 of h))
    logits = W [mean_t h_t, max_t h_t] + b

Norms are over one recording, so none depends on what stands beside it, and how far a place is above
the rest of the recording is kept, which a norm over the channels of that place would take away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.images import counted_flops
from modelwright.models.model import ModelConfig, outputs_of

LEAST = -1e4  # below every activation: what a row has not is never its largest


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of the network; ``outputs`` is 1 for two classes, else the number of classes.

    ``features`` are the bands of a frame, ``widths`` the channels of the convolutions over time
    and bands, ``hidden`` those of the ones over time. ``mean_length`` of recordings is in frames.
    """

    family: ClassVar[str] = "spectrogram"
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {
        "features": 4,
        "outputs": 3,
        "widths": [2, 4],
        "hidden": 6,
        "dropout": 0.0,
    }
    features: PositiveInt
    outputs: PositiveInt
    widths: tuple[PositiveInt, ...] = (16, 32, 48, 64)
    hidden: PositiveInt = 96
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    mean_length: PositiveFloat = 100.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths:
            raise ModelwrightError("model.widths: one convolution at least, e.g. [16, 32, 48, 64]")

    def build(self) -> Spectrogram:
        """The module with fresh parameters."""
        return Spectrogram(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the bands of a frame, the label set and how long recordings are."""
        return {
            "features": codec.features,
            "outputs": outputs_of(codec, one_for_two=True),
            "mean_length": codec.mean_length,
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one recording of ``mean_length`` frames."""
        frames = max(1, round(self.mean_length))
        return counted_flops(self, {"frames": (frames, self.features), "lengths": ()})


class Normed(nn.Module):
    """silu of a convolution's values, brought to mean 0 and variance 1 over the recording.

    Group norm of one group (arXiv:1803.08494) that counts true frames alone, with a gain and a bias
    for each channel.
    """

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d, eps: float = 1e-5) -> None:
        super().__init__()
        self.convolution, self.eps = convolution, eps
        shape = (convolution.out_channels, *(1 for _ in convolution.kernel_size))
        self.gain = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, true: Tensor) -> Tensor:
        """Map (B, channels, time[, bands]); ``true`` (B, 1, time[, 1]) is 1 where one is left."""
        x = self.convolution(x)
        over = tuple(range(1, x.ndim))
        count = true.sum(over, keepdim=True) * x[0, :, 0].numel()
        x = x * true
        mean = x.sum(over, keepdim=True) / count
        x = (x - mean) * true
        scale = (x.square().sum(over, keepdim=True) / count + self.eps).rsqrt()
        return F.silu(x * scale * self.gain + self.bias) * true


class Spectrogram(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits (B, outputs)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        bands, read = config.features, 1
        self.planes = nn.ModuleList()
        for i, made in enumerate(config.widths):
            stride = (1 if i % 2 else 2, 2)
            self.planes.append(Normed(nn.Conv2d(read, made, 3, stride=stride, padding=1)))
            bands, read = (bands + 1) // 2, made
        self.dropout = Dropout(config.dropout)
        self.gather = Normed(nn.Conv1d(read * bands, config.hidden, 3, padding=1))
        self.follow = Normed(nn.Conv1d(config.hidden, config.hidden, 5, padding=2))
        self.output = nn.Linear(2 * config.hidden, config.outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs) of recordings whose first ``lengths`` >= 1 frames are true."""
        x = frames[:, None]
        for i, plane in enumerate(self.planes):
            if i % 2 == 0:
                lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
            left = -(-x.shape[2] // (1 if i % 2 else 2))
            true = (torch.arange(left, device=x.device) < lengths[:, None]).to(x.dtype)
            x = plane(x, true[:, None, :, None])
        seen = true[:, None]
        x = x.transpose(2, 3).flatten(1, 2)  # (B, channels x bands, time)
        x = self.gather(self.dropout(x), seen)
        x = x + self.follow(self.dropout(x), seen)
        mean = x.sum(2) / lengths[:, None]
        largest = x.masked_fill(seen == 0, LEAST).amax(2)
        logits: Tensor = self.output(self.dropout(torch.cat((mean, largest), dim=1)))
        return logits
