"""Recordings to a trained recogniser's step: features, and training with them, a second.

The peer is what one writes with PyTorch and librosa (``librosa_pipeline.py``): files decoded,
resampled for another speed and made log-mel frames as they are asked for, the same Conformer of
PyTorch's own modules, CTC. Every figure comes from a process of its own; contenders take turns.

SpeechBrain is not among the peers: it installs torchaudio, which has no version for the torch that
is pinned here, and does not import without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("features", "training")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
