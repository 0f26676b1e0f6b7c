"""Speech of noise: characters read, spread over frames, frames made by a flow, samples of frames.

The flow is followed as that of pictures is (``flow.py``); it begins at noise of deviation
``temperature``, which below 1 is more like the mean. A long text is spoken sentence by sentence, as
recordings that are learned from mostly are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.data.spectrograms import MelSettings, griffin_lim
from modelwright.objectives.flow_matching import model_times
from modelwright.serving.flow import evaluating, integrate
from modelwright.tasks.grading import sentences
from modelwright.types import Columns, Encoded, Example, Sound, Text, Turn, stack

AT_ONCE = 16  # texts spoken in one pass
SHORTEST = 40  # characters of a piece that ends before its text does: "Mr." is no sentence

Spoken = Callable[[int, Turn], None]  # the number of a piece, from 0, and the piece

# Log-mel frames (B, T, bands) in nats and their number (B,) to samples (B, T hop).
Vocoder = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Speaking:
    """How texts are spoken: steps, "euler" or "heun", deviation of the noise, pace, seed.

    With no steps at all the mean spectrum is spoken.
    """

    steps: int = 10
    sampler: Literal["euler", "heun"] = "euler"
    temperature: float = 0.7
    pace: float = 1.0
    seed: int = 0


class _Spoken(Protocol):
    """What a codec of texts to be spoken offers."""

    settings: MelSettings
    features: int
    labels: list[str]
    ragged: tuple[str, ...]

    def encode(self, example: Example) -> Encoded: ...

    def tensors(self, columns: Columns) -> dict[str, Tensor]: ...

    def log_mel(self, frames: Tensor) -> Tensor: ...


class SpeechMaker:
    """A policy that answers with the speech of the text that it is given.

    The noise of a text comes from the seed alone, so it is spoken alike whatever is beside it.
    """

    def __init__(self, model: nn.Module, codec: Any, vocoder: Vocoder, speaking: Speaking) -> None:
        self.model: Any = model
        self.codec: _Spoken = codec
        self.vocoder, self.speaking = vocoder, speaking

    @classmethod
    def of(cls, model: nn.Module, codec: Any, vocoder: Vocoder, task: Any) -> SpeechMaker:
        """The policy with the settings of a task, where it has some."""
        settings: Mapping[str, Any] = getattr(task, "sampling", {})
        return cls(model, codec, vocoder, Speaking(**settings))

    def changed(self, **settings: Any) -> SpeechMaker:
        """The same with other settings, such as another seed."""
        speaking = replace(self.speaking, **settings)
        return SpeechMaker(self.model, self.codec, self.vocoder, speaking)

    def answer(self, given: Sequence[Sequence[Turn]], seen: Spoken | None = None) -> list[Turn]:
        """The speech of each text.

        Args:
            given: the texts.
            seen: takes the pieces of the only text, each as soon as it is spoken.

        Raises:
            ModelwrightError: a character or voice that the model does not know.
        """
        texts = [pieces(turns) for turns in given]
        cut = [piece for text in texts for piece in text]
        at_once = AT_ONCE if seen is None else 1
        spoken: list[Sound] = []
        for i in range(0, len(cut), at_once):
            spoken += self._spoken(cut[i : i + at_once])
            if seen is not None:
                seen(i, Turn("assistant", (spoken[-1],)))
        said = iter(spoken)
        return [Turn("assistant", (_joined([next(said) for _ in text]),)) for text in texts]

    def spectrum(self, turns: Sequence[Turn]) -> Tensor:
        """Log-mel frames (T, bands) in nats of all that ``answer`` speaks of a text."""
        frames, lengths = self.spectra(pieces(turns))
        return torch.cat([row[:n] for row, n in zip(frames, lengths.tolist(), strict=True)])

    def spectra(self, given: Sequence[Sequence[Turn]]) -> tuple[Tensor, Tensor]:
        """Log-mel frames (B, T, bands) in nats of texts, and how many each has, (B,)."""
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        tensors = self.codec.tensors(stack(encoded, self.codec.ragged))
        device = next(self.model.parameters()).device
        letters = tensors["letters"].to(device)
        labels = tensors["label"].to(device) if self.codec.labels else None
        with evaluating(self.model), torch.inference_mode():
            meant, paces = self.model.read(letters, labels)
            durations = whole(paces.float().exp() / self.speaking.pace * (letters >= 0))
            lengths = durations.sum(1)
            spread = self.model.spread(meant, durations, int(lengths.max()))
            frames = spread.mean.float()
            if self.speaking.steps:
                frames = self._carried(spread, labels)
        return self.codec.log_mel(frames), lengths

    def _carried(self, spread: Any, labels: Tensor | None) -> Tensor:
        """The flow from noise to frames."""

        def velocity(x: Tensor, t: float) -> Tensor:
            times = model_times(torch.full((len(x),), t, device=x.device))
            found: Tensor = self.model.flow(x, times, spread, labels)
            return found.float()

        rows, total, bands = spread.mean.shape
        rng = np.random.default_rng(self.speaking.seed)
        # One noise for all, drawn frame by frame: a text's own whatever its length and neighbours.
        noise = torch.from_numpy(rng.standard_normal((total, bands), dtype=np.float32))
        noise = noise.to(spread.mean.device) * self.speaking.temperature
        start = noise.expand(rows, total, bands) * spread.there
        return integrate(velocity, start, self.speaking.steps, self.speaking.sampler)

    def _spoken(self, given: Sequence[Sequence[Turn]]) -> list[Sound]:
        frames, lengths = self.spectra(given)
        with torch.inference_mode():
            samples = self.vocoder(frames, lengths).float().clamp(-1, 1).cpu().numpy()
        settings = self.codec.settings
        ends = (lengths * settings.hop).tolist()
        return [Sound(row[:end], settings.rate) for row, end in zip(samples, ends, strict=True)]


def pieces(turns: Sequence[Turn]) -> list[list[Turn]]:
    """A question of a text as one question for each of its sentences, short ones together."""
    (turn,) = (t for t in turns if any(isinstance(p, Text) for p in t.parts))
    found = [""]
    for sentence in sentences(turn.text):
        if len(found[-1]) >= SHORTEST:
            found.append("")
        found[-1] += f" {sentence}" if found[-1] else sentence
    if len(found) > 1 and len(found[-1]) < SHORTEST:
        last = found.pop()
        found[-1] += f" {last}"
    others = tuple(p for p in turn.parts if not isinstance(p, Text))
    if len(found) == 1:
        return [list(turns)]
    return [[replace(turn, parts=(Text(text), *others))] for text in found]


def _joined(spoken: Sequence[Sound]) -> Sound:
    """Recordings one after another; each begins and ends with its own silence."""
    return Sound(np.concatenate([sound.samples for sound in spoken]), spoken[0].rate)


def whole(lasting: Tensor) -> Tensor:
    """Durations (B, S) as whole frames, int64: at least 1 where there is any, in all as long.

    Every character ends at the frame nearest to where the sum of all before it ends.
    """
    ends = lasting.cumsum(1).round().long()
    durations = ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))
    return durations.clamp(min=1) * (lasting > 0)


def by_rule(settings: MelSettings, iterations: int) -> Vocoder:
    """The algorithm of Griffin and Lim as a vocoder, each row by itself."""

    def vocoder(frames: Tensor, lengths: Tensor) -> Tensor:
        samples = torch.zeros(len(frames), frames.shape[1] * settings.hop, device=frames.device)
        for row, length, made in zip(frames, lengths.tolist(), samples, strict=True):
            found = griffin_lim(row[None, :length], settings, iterations=iterations)
            made[: length * settings.hop] = found[0]
        return samples

    return vocoder


def by_model(model: nn.Module, codec: Any) -> Vocoder:
    """A trained vocoder, with the codec that scales its frames."""

    def vocoder(frames: Tensor, lengths: Tensor) -> Tensor:
        with evaluating(model), torch.inference_mode():
            made: Tensor = model(frames=codec.standardised(frames), lengths=lengths)
            return made

    return vocoder
