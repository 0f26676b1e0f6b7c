"""Ours as a server of the same weights: ``python -m benchmarks.serving.host SHAPE KIND PORT``.

Its tokens are words such as t17, as in the GGUF files, and no answer ends before its length.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import torch

from benchmarks.serving.contender import load_model
from modelwright import runtime
from modelwright.serving.engine import Engine
from modelwright.serving.server import serve
from modelwright.types import Turn


class Words:
    """A codec as the engine needs it."""

    end, vocabulary = 2, 32000
    special: frozenset[int] = frozenset()
    ragged = ("tokens",)

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of what was said."""
        return [token for turn in turns for token in self.tokens(turn.text)]

    def tokens(self, text: str) -> list[int]:
        """A word, a token."""
        return [int(word[1:]) for word in text.split()]

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The words, each with a space behind it."""
        return b"".join(b"t%d " % token for token in tokens)


def main() -> None:
    """Until it is stopped."""
    shape, kind, port = sys.argv[1:]
    torch.set_num_threads(runtime.cores())
    engine = Engine(load_model(shape, kind), Words(), max_batch=16)  # type: ignore[arg-type]
    serve(engine, "bench", port=int(port))


if __name__ == "__main__":
    main()
