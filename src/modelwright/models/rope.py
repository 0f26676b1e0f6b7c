"""The angles of rotary positions, plain or stretched for contexts longer than those trained on.

The angle of pair i at position p is p * f_i. Plain: f_i = base^(-2i/d) (arXiv:2104.09864). With
L the context before stretching and s the factor:

* "linear": f / s (arXiv:2306.15595).
* "llama3": pairs that turn less than ``low`` times within L are divided by s, those that turn
  more than ``high`` times are kept; between, with r = L f / 2pi turns and
  w = (r - low) / (high - low): (1 - w) f / s + w f (Llama 3.1, arXiv:2407.21783).
* "yarn": as above, but w falls linearly in the number of the pair, between the pairs that turn
  ``high`` and ``low`` times, and queries and keys grow by 0.1 ln s + 1 (arXiv:2309.00071).
* "ntk" is no scaling of its own but another base: ``ntk_base``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.errors import ModelwrightError

SCALINGS = ("none", "linear", "llama3", "yarn")
YARN = (1.0, 32.0)  # turns within the context below which pairs are divided, above which kept


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


def ntk_base(base: float, factor: float, width: int) -> float:
    """The base that slows the last pair down ``factor`` times and leaves the first one alone.

    b' = b s^(d / (d - 2)), d the width of a head: then b'^(-(d-2)/d) = b^(-(d-2)/d) / s
    ("NTK-aware scaling", Peng and Quesnelle 2023; arXiv:2309.00071, section 3.1).
    """
    return float(base * factor ** (width / (width - 2)))


def stretched(kind: str, *, base: float, width: int, old: int, new: int) -> dict[str, Any]:
    """Fields of a config whose heads are ``width`` wide, for a context of ``new`` after ``old``.

    Args:
        kind: "linear", "ntk" or "yarn".
        base: of the frequencies.
        width: of a head.
        old: the context that was trained on.
        new: the context to come.

    Raises:
        ModelwrightError: the new context is not longer.
    """
    if new <= old:
        raise ModelwrightError(
            f"context: {new} is not longer than the {old} of training; leave it out"
        )
    factor = new / old
    if kind == "ntk":
        return {"context": new, "rope_base": ntk_base(base, factor, width)}
    trained = {"rope_context": old} if kind == "yarn" else {}  # a "linear" one need not know it
    return {"context": new, "rope_scaling": kind, "rope_factor": factor, **trained}
