"""What is learned of an example, shown before it trains: given text plain, learned text coloured.

The first examples lie in ``data/STAGE/learned.html`` of the run; one of them is said.
"""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.runs import Run
from modelwright.types import Array, Codec, Columns, ragged_column

EXAMPLES = 12  # on the page
_SAID = 1500  # characters of the one that is said
_COLOUR, _PLAIN = "\x1b[32m", "\x1b[0m"
_PAGE = """<!doctype html><meta charset="utf-8"><title>What is learned</title>
<style>body{font:15px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}
pre{white-space:pre-wrap;background:#f4f4f4;color:#444;padding:1em}
mark{background:#bfe8bf;color:#000}</style>
"""


class Piece(NamedTuple):
    """A stretch of an example: its text, whether it is learned, whether it is a special token."""

    text: str
    learned: bool
    special: bool = False


def pieces(codec: Any, tokens: Array, learn: Array) -> Iterator[Piece]:
    """An example as text, special tokens by their names; ``tokens`` and ``learn`` are (T,)."""
    marks = [(int(t), bool(x)) for t, x in zip(tokens, learn, strict=True)]
    for (learned, special), run in groupby(marks, lambda m: (m[1], m[0] in codec.special)):
        ids = [t for t, _ in run]
        if special:
            yield Piece("".join(codec.tokenizer.id_to_token(t) or "" for t in ids), learned, True)
        else:
            yield Piece(codec.text(ids), learned)


def keep(run: Run, stage: str, columns: Columns, codec: Codec, say: Callable[[str], None]) -> None:
    """Write the first examples of a stage to its page, and say one and how much is learned.

    Raises:
        ModelwrightError: nothing at all is learned.
    """
    tokens, learn = ragged_column(columns, "tokens"), ragged_column(columns, "learn")
    total, learned = len(tokens.values), int(np.count_nonzero(learn.values))
    if not learned:
        raise ModelwrightError(
            f"{stage}: of {total:,} tokens none is to be learned; check what the assistant says, "
            "and the weights of the messages"
        )
    said = f"{learned:,} of {total:,} tokens of train are learned ({learned / total:.1%})"
    count = min(EXAMPLES, len(tokens))
    examples = [list(pieces(codec, tokens[i], learn[i])) for i in range(count)]
    body = "".join(f"<pre>{''.join(map(_html, example))}</pre>\n" for example in examples)
    path = run.path / "data" / stage / "learned.html"
    replace_file(path, f"{_PAGE}<p>{html.escape(said)}: what is marked.</p>\n{body}".encode())
    say(f"prepare: {stage}: {said}; the first {count} in colour: {path}")
    say(coloured(examples[0], colours=sys.stderr.isatty() and "NO_COLOR" not in os.environ))


def coloured(example: list[Piece], *, colours: bool) -> str:
    """An example for a terminal: what is learned in green, or between [+ and +] without colours."""
    begin, end = (_COLOUR, _PLAIN) if colours else ("[+", "+]")
    shown, left = "", _SAID
    for learned, run in groupby(example, lambda piece: piece.learned):
        text = "".join(piece.text for piece in run)
        clean = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
        cut = clean if len(clean) <= left else clean[:left] + " ..."
        shown += f"{begin}{cut}{end}" if learned else cut
        if (left := left - len(clean)) <= 0:
            break
    return shown


def _html(piece: Piece) -> str:
    text = html.escape(piece.text)
    text = f"<b>{text}</b>" if piece.special else text
    return f"<mark>{text}</mark>" if piece.learned else text
