"""Recordings a second that a Conformer is trained with, from files or shards to its step."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.speech.measure import row


def rows(quick: bool) -> list[Row]:
    """Ours against the peer."""
    return [row("training", quick)]
