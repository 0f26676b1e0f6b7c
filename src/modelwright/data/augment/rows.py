"""Other views of single rows of a corpus: the transforms of a chain on text, media or moves.

Images are decoded and written as PNG, sounds as WAV in 16 bits, so a view loses nothing more than
its transform takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.data import pictures, sounds
from modelwright.data.operations.operation import WorkRow
from modelwright.errors import ModelwrightError

# The kinds of transforms that make a row of a modality. "frames" and "mix" are left to training:
# a masked spectrogram is no recording, and a mixture has two labels.
MODALITIES = {"text": "text", "image": "image", "sound": "audio", "game": "game"}


def check(transforms: Sequence[Any]) -> None:
    """Refuse transforms that only a training can use.

    Raises:
        ModelwrightError: names the first one.
    """
    for transform in transforms:
        if transform.kind not in MODALITIES:
            raise ModelwrightError(
                f"augment: {type(transform).__name__} changes batches, not rows of a corpus; put "
                "it under train.augment of a recipe"
            )


def view(row: WorkRow, transforms: Sequence[Any], rng: np.random.Generator) -> WorkRow | None:
    """A changed copy of a row; None where no transform is for its modality, or nothing changed.

    Id and parents are the caller's to set; label, groups and everything else stay.
    """
    fitting = [t for t in transforms if MODALITIES[t.kind] == row["modality"]]
    if not fitting:
        return None
    if row["modality"] == "text":
        return _of_text(row, fitting, rng)
    if row["modality"] == "game":
        return _of_game(row, fitting, rng)
    if not row.get("media"):
        return None
    return (_of_image if row["modality"] == "image" else _of_sound)(row, fitting, rng)


def _of_text(row: WorkRow, transforms: Sequence[Any], rng: np.random.Generator) -> WorkRow | None:
    text = row.get("text") or ""
    for transform in transforms:
        text = transform(text, rng)
    return None if text == (row.get("text") or "") else {**row, "text": text}


def _of_image(row: WorkRow, transforms: Sequence[Any], rng: np.random.Generator) -> WorkRow | None:
    pixels, _ = pictures.decode(row["media"])
    batch = pixels[None]
    for transform in transforms:
        batch = transform(batch, rng)
    if np.array_equal(batch[0], pixels):
        return None
    return {**row, "media": pictures.encode_png(batch[0]), "mime": "image/png"}


def _of_sound(row: WorkRow, transforms: Sequence[Any], rng: np.random.Generator) -> WorkRow:
    samples, rate = sounds.decode(row["media"])
    for transform in transforms:
        samples = transform(samples, rate, rng)
    return {**row, "media": sounds.encode_wav(samples, rate), "mime": "audio/wav"}


def _of_game(row: WorkRow, transforms: Sequence[Any], rng: np.random.Generator) -> WorkRow | None:
    written = isinstance(row.get("meta"), str)
    meta: Mapping[str, Any] = json.loads(row["meta"]) if written else row.get("meta") or {}
    if meta.get("game") != "othello" or not meta.get("moves") or meta.get("position"):
        return None  # no other game that we know has symmetries
    moves = [str(move) for move in meta["moves"]]
    for transform in transforms:
        moves = transform(moves, rng)
    changed: Any = {**meta, "moves": moves}
    if written:
        changed = json.dumps(changed, ensure_ascii=False, sort_keys=True)
    return {**row, "meta": changed, "text": " ".join(moves) if row.get("text") else None}
