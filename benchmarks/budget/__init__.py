"""Does a budget hold, and is what it derives as good as what a hand would choose?

``budget: 1m`` with nothing else said trains on the standard library's source; then the same time
is given to every pair of a grid of sizes and rates. The stage must end within 5 % of its time,
and its loss on held-out modules may be at most 3 % above the best of the grid. All runs see the
same data, one after another on the same machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("one_minute", "three_minutes", "ten_minutes")


def questions(quick: bool) -> list[Row]:
    """The rows of every budget."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
