"""Data: ours beside datatrove, HF datasets and tokenizers, trafilatura, resiliparse, cleanlab.

All contenders of a question are measured in turns in the same run, one core each, on the same
real texts. A peer whose requirements do not agree with the repository's constraints stands in an
environment of its own; its file in ``peers`` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("dedup", "filtered", "tokenization", "extraction", "labels", "pii")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
