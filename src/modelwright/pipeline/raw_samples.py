"""A few pictures of every part as they were before preparation, so that an export can be proved.

Shards hold pictures at the size that the model sees. What an artefact makes of a picture, from its
file on, can be compared only with the file; so the first few of every part are kept beside them.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelwright.data.pictures import encode_png
from modelwright.files import make_folder, replace_file
from modelwright.runs import Run
from modelwright.types import Example, Image, ImageFile

SAMPLES = 4  # of every part


def keep(run: Run, stage: str, part: str, examples: Sequence[Example]) -> None:
    """Keep the pictures of the first examples: files as they are, arrays as PNG."""
    folder = _folder(run, stage, part)
    shutil.rmtree(folder, ignore_errors=True)  # of data that have changed since
    for i, example in enumerate(examples[:SAMPLES]):
        pictures = [p for t in example.turns for p in t.parts if isinstance(p, Image | ImageFile)]
        if len(pictures) != 1:
            return
        (one,) = pictures
        if isinstance(one, ImageFile):
            content = one.content
        else:
            pixels = np.asarray(one.pixels)
            pixels = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
            if pixels.dtype != np.uint8:
                return
            content = encode_png(pixels)
        make_folder(folder)
        replace_file(folder / str(i), content)


def as_kept(run: Run, stage: str, part: str, examples: Sequence[Example]) -> list[Example]:
    """The first examples of a part with the pictures that were kept, where they were."""
    folder = _folder(run, stage, part)
    found = []
    for i, example in enumerate(examples):
        path = folder / str(i)
        if not path.is_file():
            found.append(example)
            continue
        raw = ImageFile(path.read_bytes(), f"{stage}/{part}/{i}")
        turns = tuple(
            dataclasses.replace(t, parts=tuple(raw if isinstance(p, Image) else p for p in t.parts))
            for t in example.turns
        )
        found.append(dataclasses.replace(example, turns=turns))
    return found


def _folder(run: Run, stage: str, part: str) -> Path:
    return run.path / "data" / stage / "raw" / part
