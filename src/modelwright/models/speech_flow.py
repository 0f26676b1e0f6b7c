"""Speech of a text by flow matching (in the manner of Matcha-TTS, arXiv:2309.03199).

Convolutions read the characters; one head says how long each is spoken, and what was read is
spread over so many frames. From that a mean spectrum is predicted, and beside it the velocity that
carries noise to a spectrum. All of it is convolutions over time: blocks of ConvNeXt, those of the
velocity shifted and scaled by the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.models import reading
from modelwright.models.diffusion import Condition
from modelwright.models.model import ModelConfig
from modelwright.models.vocos import EPS, FrameBlock, initialised

LETTERS_A_FRAME = 0.25  # of English at 62 frames a second, for the FLOPs alone


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a model of speech.

    ``vocabulary`` characters, ``features`` mel bands, ``classes`` voices (0: one). ``text_depth``
    blocks read the characters, ``depth`` make the velocity, all of ``width`` channels, and
    ``dropout`` of every block's branch is left out in training.
    """

    family: ClassVar[str] = "speech_flow"
    inputs = reading.spoken_texts
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 5,
        "features": 6,
        "classes": 2,
        "width": 8,
        "text_depth": 1,
        "depth": 2,
    }
    vocabulary: PositiveInt
    features: PositiveInt
    classes: NonNegativeInt = 0
    width: PositiveInt = 192
    text_depth: PositiveInt = 4
    depth: PositiveInt = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mean_length: PositiveFloat = 100.0  # frames of a recording, for the FLOPs alone

    def build(self) -> SpeechFlow:
        """The module with fresh parameters."""
        return SpeechFlow(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the characters, the bands, the voices and how long recordings are."""
        return {
            "vocabulary": codec.vocabulary,
            "features": codec.features,
            "classes": len(codec.labels),
            "mean_length": codec.mean_length,
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one recording: 6 a weight and frame, or character."""
        block = self.width * (6 * self.width + 7)
        letters = (self.text_depth + 1) * block * LETTERS_A_FRAME
        joined = (2 * self.width + 4 * self.features) * self.width
        condition = (256 + (3 + 2 * self.depth) * self.width) * self.width
        return 6.0 * (self.mean_length * (letters + (self.depth + 2) * block + joined) + condition)


class Spread(NamedTuple):
    """Characters spread over frames.

    ``meant`` (B, T, width), the ``mean`` spectrum (B, T, features), where a row has a frame,
    ``there`` (B, T, 1), and of ``which`` character it is (B, T).
    """

    meant: Tensor
    mean: Tensor
    there: Tensor
    which: Tensor


class SpeechFlow(nn.Module):
    """Characters, their durations, and frames between noise and speech, to what speech is."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, 3 * config.width

        def blocks(depth: int, told: int = 0) -> nn.ModuleList:
            given: dict[str, Any] = {
                "hidden": hidden,
                "scale": 0.5,
                "told": told,
                "dropout": config.dropout,
            }
            return nn.ModuleList(FrameBlock(width, **given) for _ in range(depth))

        self.letter_embedding = nn.Embedding(config.vocabulary, width)
        self.voice_embedding = nn.Embedding(config.classes + 1, width) if config.classes else None
        self.reading, self.pacing = blocks(config.text_depth), blocks(1)
        self.read_norm, self.pace_norm = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.pace = nn.Linear(width, 1)
        self.place = nn.Linear(3, width)
        self.spreading = blocks(2)
        self.mean_norm = nn.LayerNorm(width, EPS)
        self.mean = nn.Linear(width, config.features)
        self.condition = Condition(width, config.classes)
        self.join = nn.Linear(2 * config.features + width, width)
        self.flowing = blocks(config.depth, told=width)
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, config.features)
        initialised(self)
        for name, table in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(table, std=0.3)
        nn.init.zeros_(self.head.weight)

    def read(self, letters: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What characters (B, S), -1 beyond a row's end, mean: (B, S, width), log durations (B, S).

        ``labels`` (B,) int64 are voices, -1 for none. Durations teach the reading nothing.
        """
        there = (letters >= 0)[..., None]
        x = self.letter_embedding(letters.clamp(min=0))
        if self.voice_embedding is not None:
            none = torch.full_like(letters[:, 0], self.config.classes)
            chosen = none if labels is None else torch.where(labels < 0, none, labels)
            x = x + self.voice_embedding(chosen)[:, None]
        x = x * there
        for block in self.reading:
            x = block(x, there)
        x = self.read_norm(x) * there
        paced = x.detach()
        for block in self.pacing:
            paced = block(paced, there)
        return x, self.pace(self.pace_norm(paced))[..., 0]

    def spread(self, meant: Tensor, durations: Tensor, frames: int) -> Spread:
        """What characters mean, spread over so many frames, and the mean spectrum it makes.

        Args:
            meant: (B, S, width) of ``read``.
            durations: (B, S) whole frames of each character.
            frames: of the result, T; rows have as many as their durations add up to.
        """
        ends = durations.cumsum(1)
        at = torch.arange(frames, device=meant.device).expand(len(meant), frames).contiguous()
        which = torch.searchsorted(ends, at, right=True).clamp(max=durations.shape[1] - 1)
        there = (at < ends[:, -1:])[..., None]
        long = durations.gather(1, which).clamp(min=1).to(meant.dtype)
        since = (at - (ends.gather(1, which) - durations.gather(1, which))).to(meant.dtype) + 0.5
        place = torch.stack(
            (since / long, since.log(), (long - since).clamp(min=0.5).log()), dim=-1
        )
        x = meant.gather(1, which[..., None].expand(-1, -1, meant.shape[2]))
        x = (x + self.place(place)) * there
        for block in self.spreading:
            x = block(x, there)
        return Spread(x, self.mean(self.mean_norm(x)) * there, there, which)

    def flow(
        self, frames: Tensor, times: Tensor, spread: Spread, labels: Tensor | None = None
    ) -> Tensor:
        """The velocity (B, T, features) of frames between noise and speech, given ``spread``."""
        condition = F.silu(self.condition(times, labels))
        known = torch.cat((frames, spread.mean.detach(), spread.meant), dim=-1)
        x = self.join(known) * spread.there
        for block in self.flowing:
            x = block(x, spread.there, condition)
        velocity: Tensor = self.head(self.norm(x)) * spread.there
        return velocity

    def forward(
        self,
        letters: Tensor,
        durations: Tensor,
        frames: Tensor,
        times: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Of every frame: the velocity, the mean spectrum, and its character's log duration.

        Args:
            letters: int64 (B, S), -1 beyond a row's end.
            durations: int64 (B, S), frames of each.
            frames: (B, T, features), between noise and speech.
            times: (B,), in time steps, 0 for speech.
            labels: int64 (B,), the voices, -1 for none.

        Returns:
            (B, T, 2 features + 1).
        """
        meant, paces = self.read(letters, labels)
        spread = self.spread(meant, durations, frames.shape[1])
        velocity = self.flow(frames, times, spread, labels)
        paced = paces.gather(1, spread.which)[..., None] * spread.there
        return torch.cat((velocity, spread.mean, paced), dim=-1)
