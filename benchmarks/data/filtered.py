"""Filters, deduplication and tokens together beside datatrove's; see ``dedup``."""

from __future__ import annotations

from benchmarks.data.dedup import compared, corpus, repeats
from benchmarks.run import Row


def rows(quick: bool) -> list[Row]:
    """Throughput a core."""
    with corpus(quick) as (folder, written, _):
        row, _ = compared("full", "filters + MinHash + tokens", folder, written, repeats(quick))
        return [row]
