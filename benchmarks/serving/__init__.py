"""Answering token by token: ours, llama.cpp and transformers, on the same random weights.

llama.cpp's programs are found by MODELWRIGHT_LLAMA_CPP or on the PATH (``llama-bench`` and
``llama-quantize``). Weights lie in MODELWRIGHT_BENCH_FOLDER, or a folder of the system's for
passing things, 8 GB for the larger shape, and are made once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("single", "streams", "load", "classifiers", "speech")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
