"""What is said while it is said: a stream of samples in, its text out piece by piece.

The model hears a window of the last seconds at a time. Frames nearer to an edge of the window than
``margin`` are left to the windows before and after it, which hear more around them; so each frame
of the stream is decided once, and memory holds one window whatever the stream's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from modelwright.data import sounds
from modelwright.data.pictures import Undecodable
from modelwright.data.sound_settings import SCALED
from modelwright.errors import ModelwrightError
from modelwright.objectives.ctc import scored
from modelwright.types import Array, Codec, Ragged

WINDOW, MARGIN = 10.0, 2.0  # seconds


class Listener:
    """The state of one stream: the samples that are still needed, and the letter said last.

    The likeliest path is read, without the search for prefixes that a codec may have: a letter
    that was given out is not taken back.
    """

    def __init__(
        self, model: nn.Module, codec: Codec, *, window: float = WINDOW, margin: float = MARGIN
    ) -> None:
        """Begin a stream.

        Args:
            model: gives letters frame by frame, such as a Conformer trained by ``ctc``.
            codec: of its training.
            window: seconds that are heard at once; an answer comes so long after its sound.
            margin: seconds at both edges of a window that are heard and not answered.

        Raises:
            ModelwrightError: the model does not read frames, or the times leave nothing.
        """
        self.model, self.codec = model, cast(Any, codec)
        stride = getattr(getattr(model, "config", None), "stride", 0)
        ear = getattr(codec, "ear", None)
        if not stride or ear is None or ear.reads != "frames" or not hasattr(codec, "blank"):
            raise ModelwrightError(
                "a stream is written down by a Conformer that was trained by ctc; ask this model"
                " with whole recordings"
            )
        self.rate: int = ear.settings.rate
        self.step: int = ear.settings.hop * stride  # samples of one frame of the model
        self.window, self.margin = (round(s * self.rate / self.step) for s in (window, margin))
        if self.margin < 0 or self.window <= 2 * self.margin:
            raise ModelwrightError(
                f"a stream in windows of {window:g} s of which {margin:g} s at both ends are not"
                " answered; give a window longer than twice the margin"
            )
        self._start()

    def _start(self) -> None:
        self._held = np.zeros(0, np.int16)
        self._answered = 0  # frames at the beginning of what is held
        self._last = self.codec.blank
        self._silent = True

    def feed(self, samples: Array) -> str:
        """Hear some more samples (n,) in [-1, 1] at ``rate``; the text that is now known.

        Raises:
            ModelwrightError: samples of another shape, or no numbers.
        """
        values = np.asarray(samples, np.float32)
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ModelwrightError(
                f"stream: samples of shape {values.shape}; finite ones of one channel, (n,), are"
                " meant"
            )
        whole = np.clip(np.rint(values * SCALED), -SCALED, SCALED - 1).astype(np.int16)
        self._held = np.concatenate((self._held, whole))
        said = ""
        while len(self._held) >= self.window * self.step:
            said += self._read(self._held[: self.window * self.step], self.window - self.margin)
        return said

    def finish(self) -> str:
        """The text of what is left; the stream after it is a new one."""
        said = self._read(self._held, None) if len(self._held) else ""
        self._start()
        return said

    def _read(self, samples: Array, end: int | None) -> str:
        """The text of the frames of a window that are not answered yet, up to ``end``."""
        columns = {"samples": Ragged.of([samples]), "letters": Ragged.of([np.zeros(0, np.int32)])}
        device = next(self.model.parameters()).device
        inputs = {
            name: tensor.to(device)
            for name, tensor in self.codec.tensors(columns).items()
            if name in ("frames", "lengths")
        }
        with torch.inference_mode():
            scores, counts = scored(self.model, inputs)
        best = scores[0, self._answered : min(int(counts[0]), end or int(counts[0]))].argmax(-1)
        letters = best.cpu().numpy()
        fresh = letters[np.diff(letters, prepend=self._last) != 0]
        if len(letters):
            self._last = int(letters[-1])
        if end is not None:
            before = max(0, end - self.margin)
            self._held, self._answered = self._held[before * self.step :], end - before
        return self._text(fresh)

    def _text(self, letters: Array) -> str:
        spelling = self.codec.spelling
        text: str = spelling.read([n for n in letters.tolist() if n != spelling.blank])
        if text and spelling.units == "words" and not self._silent:
            text = f" {text}"
        self._silent = self._silent and not text
        return text


def written_down(path: str | Path, listener: Listener) -> Iterator[str]:
    """The text of a recording, piece by piece as it becomes known; WAV is read a minute at a time.

    Raises:
        ModelwrightError: there is no such file, or it holds no sound that can be decoded.
    """
    try:
        content = Path(path).expanduser().read_bytes()
        for samples, rate in sounds.minutes(content):
            if said := listener.feed(sounds.resampled(sounds.mono(samples), rate, listener.rate)):
                yield said
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelwrightError(f"{path}: cannot be read ({reason}); give a recording") from error
    except Undecodable as error:
        raise ModelwrightError(f"{path}: {error}; give a whole recording") from error
    if said := listener.finish():
        yield said
