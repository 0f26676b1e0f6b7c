"""The factor on the loss that keeps float16 gradients from vanishing, and its course.

Gradients below 6e-8 are zero in float16. The loss is multiplied by a power of two before backward
and the gradients divided by it after; where one overflowed, the step is not taken and the factor
halved; after enough steps without, it is doubled (Micikevicius et al. 2018, arXiv:1710.03740,
section 3.2). The steps that overflowed are in the ledger, so the factor of a step is a pure
function of it: a resumed run has the same, with nothing more to save.
"""

from __future__ import annotations

from collections.abc import Sequence

FIRST, LARGEST = 2.0**16, 2.0**24
DOUBLED_AFTER = 2000  # steps in a row without an overflow


def loss_scale(step: int, overflows: Sequence[int]) -> float:
    """The factor of step ``step``, given the earlier steps that overflowed, in rising order.

    It is never below 1: where that overflows too, the gradient is not finite by itself.
    """
    scale, since = FIRST, 0
    for overflow in (o for o in overflows if o < step):
        scale = max(1.0, _grown(scale, overflow - since) / 2)
        since = overflow + 1
    return _grown(scale, step - since)


def _grown(scale: float, steps: int) -> float:
    # Bounded before the power is taken: 2.0**1024 is no float.
    return min(LARGEST, scale * 2.0 ** min(steps // DOUBLED_AFTER, 64))
