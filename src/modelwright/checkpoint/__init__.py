"""Checkpoints that are never unreadable and never silently wrong (law 13).

No common format notices a flipped bit in a weight, and a directory that is written twice can
mix two steps without an error. So here every step gets a fresh directory, every tensor and file
a hash, and nothing counts until it is sealed; see ``layout`` for what lies where, ``saving``
for the order of writing and ``loading`` for what is checked.
"""

from __future__ import annotations

from modelwright.checkpoint.loading import Checkpoint, load, newest, newest_sound, verify
from modelwright.checkpoint.regions import Piece, Region
from modelwright.checkpoint.saving import save
from modelwright.checkpoint.sharded import newest_sound_together, save_sharded

__all__ = [
    "Checkpoint",
    "Piece",
    "Region",
    "load",
    "newest",
    "newest_sound",
    "newest_sound_together",
    "save",
    "save_sharded",
    "verify",
]
