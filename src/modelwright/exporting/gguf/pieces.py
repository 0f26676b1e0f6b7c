"""A tokenizer of sentencepiece's kind as llama.cpp has it: pieces with scores, and no merges.

llama.cpp joins the two neighbours whose piece has the highest score, the leftmost first; our
tokenizer joins the pair that stands first in its list of merges. The two agree if (a) every piece
of two or more characters is made by a merge, (b) all pairs that spell a piece are merges, and (c)
the merges of a piece stand together, so that its place in the list is a score. All three are
checked, and so is what is done to a text before: spaces become a mark, with or without one in
front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, models, normalizers

NORMAL, UNKNOWN, BYTE = 1, 2, 6  # kinds of tokens, of the format
SPACE = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def prefix_of(document: Mapping[str, Any]) -> bool | str:
    """Whether a space is put before a text; a string says why it is not sentencepiece's kind."""
    normalizer, before = document.get("normalizer"), document.get("pre_tokenizer")
    steps = [normalizer]
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        steps = normalizer["normalizers"]
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
    if before is not None and before != {**split, "invert": False}:
        return f"it cuts texts by {before.get('type')}"
    if steps not in ([_PREPEND, _REPLACE], [_REPLACE]):
        return "it changes texts otherwise than by marking their spaces"
    return len(steps) == 2


def scores_of(model: Mapping[str, Any], special: set[str]) -> dict[str, float] | str:
    """A score for every piece, or why its merges cannot be said by scores.

    Args:
        model: of a ``tokenizer.json``, BPE with byte fallback.
        special: tokens that no text is made of.
    """
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    pieces = {p for p in model["vocab"] if p not in special and not _BYTE.fullmatch(p)}
    scores: dict[str, float] = {}
    last = ""
    for rank, pair in enumerate(merges):
        made = "".join(pair)
        if made in scores and made != last:
            return f"the merges of {made!r} do not stand together"
        scores.setdefault(made, -float(rank + 1))
        last = made
    listed = set(merges)
    for piece in pieces:
        if len(piece) == 1:
            scores[piece] = -float(len(merges) + 1)
        elif piece not in scores:
            return f"no merge makes {piece!r}"
        cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        lost = next((c for c in cuts if pieces.issuperset(c) and c not in listed), None)
        if lost is not None:
            return f"{lost[0]!r} and {lost[1]!r} spell a piece, but are no merge"
    return scores


def kind_of(piece: str, unknown: str | None) -> int:
    """The kind of a piece that is not special."""
    if piece == unknown:
        return UNKNOWN
    return BYTE if _BYTE.fullmatch(piece) else NORMAL


def tokenizer_of(
    tokens: list[str], kinds: list[int], scores: list[float], *, prefix: bool
) -> Tokenizer:
    """The tokenizer that pieces and scores describe."""
    read = {t: i for i, (t, k) in enumerate(zip(tokens, kinds, strict=True)) if k == NORMAL}
    pairs = [
        (scores[number], piece[:i], piece[i:])
        for piece, number in read.items()
        for i in range(1, len(piece))
        if piece[:i] in read and piece[i:] in read
    ]
    pairs.sort(key=lambda pair: -pair[0])
    kept = (NORMAL, UNKNOWN, BYTE)
    vocab = {t: i for i, (t, k) in enumerate(zip(tokens, kinds, strict=True)) if k in kept}
    unknown = next((t for t, k in zip(tokens, kinds, strict=True) if k == UNKNOWN), None)
    made = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(one, other) for _, one, other in pairs],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    marked = normalizers.Replace(" ", SPACE)
    steps = [normalizers.Prepend(SPACE), marked] if prefix else [marked]
    made.normalizer = normalizers.Sequence(steps)
    return made
