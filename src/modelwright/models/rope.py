"""The angles of rotary positions, plain or stretched for contexts longer than those trained on.

The angle of pair i at position p is p * f_i. Plain: f_i = base^(-2i/d) (arXiv:2104.09864). With
L the context before stretching and s the factor:

* "linear": f / s (arXiv:2306.15595).
* "llama3": pairs that turn less than ``low`` times within L are divided by s, those that turn
  more than ``high`` times are kept; between, with r = L f / 2pi turns and
  w = (r - low) / (high - low): (1 - w) f / s + w f (Llama 3.1, arXiv:2407.21783).
* "yarn": as above, but w falls linearly in the number of the pair, between the pairs that turn
  ``high`` and ``low`` times, and queries and keys grow by 0.1 ln s + 1 (arXiv:2309.00071).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCALINGS = ("none", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """Frequencies of a head; see the module for the fields.

    ``gain`` multiplies cosine and sine (0: as "yarn" has it, 1 for the others).
    """

    width: int
    base: float = 10_000.0
    scaling: str = "none"
    factor: float = 1.0
    context: int = 0
    low: float = 1.0
    high: float = 4.0
    gain: float = 0.0

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (..., 1, width/2) in float32 for integer positions (...).

        Made anew for every batch: a table of 131072 positions would be larger than the batch, and
        a module built without memory (on the meta device) keeps nothing that must be filled.
        """
        frequency = self.frequencies().to(positions.device)
        angle = (positions[..., None].float() * frequency).unsqueeze(-2)
        gain = self.gain or (0.1 * math.log(self.factor) + 1.0 if self._yarn else 1.0)
        if gain == 1.0:
            return angle.cos(), angle.sin()
        return angle.cos() * gain, angle.sin() * gain

    @property
    def _yarn(self) -> bool:
        return self.scaling == "yarn" and self.factor > 1

    def frequencies(self) -> Tensor:
        """The f (width/2,) in float32, on the CPU."""
        pairs = torch.arange(0, self.width, 2, dtype=torch.float32, device="cpu") / self.width
        plain = 1.0 / self.base**pairs
        if self.scaling == "none":
            return plain
        slow = plain / self.factor
        if self.scaling == "linear":
            return slow
        if self.scaling == "llama3":
            turns = self.context * plain / (2 * math.pi)
            kept = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        else:
            first, last = math.floor(self._pair(self.high)), math.ceil(self._pair(self.low))
            first, last = max(first, 0), min(last, self.width - 1)
            number = torch.arange(self.width // 2, dtype=torch.float32, device="cpu")
            kept = 1.0 - ((number - first) / max(last - first, 0.001)).clamp(0.0, 1.0)
        return slow * (1.0 - kept) + plain * kept

    def _pair(self, turns: float) -> float:
        """The number of the pair, as a real number, that turns so often within the context."""
        longest = self.context / (turns * 2 * math.pi)
        return self.width * math.log(longest) / (2 * math.log(self.base))
