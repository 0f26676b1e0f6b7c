"""Frames of recordings, changed in speed and masked, a second."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.speech.measure import row


def rows(quick: bool) -> list[Row]:
    """Ours against the peer."""
    return [row("features", quick)]
