"""A question by what it holds: in words for people, and as the same name in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from modelwright.types import Frames, Image, ImageFile, Part, Sound, Turn


def key(text: str, *contents: bytes) -> str:
    """The same of the same question in every run; ``contents`` are what it holds beside text."""
    found = hashlib.sha256(text.encode("utf-8", "replace"))
    for content in contents:
        found.update(content)
    return found.hexdigest()[:16]


def key_of(turns: Sequence[Turn]) -> str:
    """The key of a question of any kind: of its words, samples, pixels and numbers."""
    text = "\n".join(turn.said for turn in turns)
    return key(text, *(_content(part) for turn in turns for part in turn.parts))


def in_words(turns: Sequence[Turn]) -> str:
    """A question as a line for people; what cannot be read is named with its size."""
    said = [turn.said for turn in turns if turn.said.strip()]
    seen = [_named(part) for turn in turns for part in turn.parts]
    return "\n".join([*filter(None, seen), *said])


def _content(part: Part) -> bytes:
    if isinstance(part, Sound):
        return np.ascontiguousarray(part.samples).tobytes()
    if isinstance(part, Image):
        return np.ascontiguousarray(part.pixels).tobytes()
    if isinstance(part, Frames):
        return np.ascontiguousarray(part.frames).tobytes()
    return part.content if isinstance(part, ImageFile) else b""


def _named(part: Part) -> str:
    if isinstance(part, Sound):
        return f"a recording of {part.seconds:.2f} s"
    if isinstance(part, Image):
        height, width = part.original or part.pixels.shape[:2]
        return f"a picture of {width} x {height}"
    if isinstance(part, Frames):
        return f"a sequence of {len(part.frames)} vectors"
    return f"the picture {part.name}" if isinstance(part, ImageFile) else ""
