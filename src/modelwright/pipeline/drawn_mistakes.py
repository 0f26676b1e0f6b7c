"""The surest mistakes of a classifier of pictures on one sheet, with where it looked.

They are taken of the validation part, for the test part chooses nothing. Beside every picture
stands Grad-CAM of what is said and of what is meant (``evaluation/attribution.py``), where captum
is installed and the model has planes to look at.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from modelwright.data.augment.sheet import tiled
from modelwright.data.pictures import pillow
from modelwright.data.shards import open_shard
from modelwright.errors import MachineError
from modelwright.evaluation import attribution
from modelwright.pipeline import samples
from modelwright.pipeline.explained import as_pixels, enlarged, heated
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.predictor import AT_ONCE, Predictor
from modelwright.training.examples import once
from modelwright.types import Array, Columns, take

SHOWN, ABREAST = 12, 2
SIDE = 112  # pixels of a shown picture's longer side
STRIP = 16  # pixels of the line above


def draw_mistakes(run: Run, name: str, fitted: Fitted, say: Say) -> None:
    """Keep the sheet as samples/mistakes-STAGE.png, if pictures of validation are mistaken.

    Nothing is done where what is classified is no picture, or there is no validation part.
    """
    folder = run.path / "data" / name / "validation"
    columns = open_shard(folder) if folder.exists() else {}
    stored = columns.get("features")
    if not isinstance(stored, np.ndarray) or stored.ndim < 3 or stored.shape[1] == 1:
        return
    rows, weights = mistakes(Predictor(fitted.model, fitted.codec, fitted.objective), columns)
    if not len(rows):
        return
    try:
        pillow()
    except MachineError as error:
        say(f"evaluate: {name}: mistakes are not drawn: {error}")
        return
    maps: list[list[Array]] = []
    try:
        maps = _maps(fitted, take(columns, rows), weights.argmax(axis=1))
    except MachineError as error:
        say(f"evaluate: {name}: mistakes are drawn without maps: {error}")
    labels = cast(Any, fitted.codec).labels
    cells = []
    for number, row in enumerate(rows.tolist()):
        meant, said = int(np.asarray(columns["label"])[row]), int(weights[number].argmax())
        line = f"meant {labels[meant]}, said {labels[said]} ({weights[number, said]:.2f})"
        picture = as_pixels(np.asarray(stored[row]))
        shown = [picture, *(heated(picture, found[number]) for found in maps)]
        cells.append(_cell(line, [enlarged(one, SIDE) for one in shown]))
    lines = [cells[i : i + ABREAST] for i in range(0, len(cells), ABREAST)]
    blank = np.full((1, 1, 3), 255, np.uint8)
    lines = [line + [blank] * (len(lines[0]) - len(line)) for line in lines]
    beside = "; beside each Grad-CAM of what is said, then of what is meant" if maps else ""
    prompt = f"{name}: the surest mistakes on validation{beside}"
    record = {"step": fitted.step, "prompt": prompt, "image": f"mistakes-{name}.png"}
    path = samples.keep_picture(run, f"evaluate-{name}", record, tiled(lines))
    say(f"evaluate: {name}: {path}: the surest mistakes on validation")


def mistakes(predictor: Predictor, columns: Columns) -> tuple[Array, Array]:
    """Rows answered wrong, the surest first, at most ``SHOWN``, and their probabilities."""
    found = []
    for part in once(columns, AT_ONCE):
        weights = predictor.weighed(part)[1]
        if weights is None:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        found.append(weights)
    weights = np.concatenate(found)
    label = np.asarray(columns["label"])
    wrong = np.flatnonzero((weights.argmax(axis=1) != label) & (label >= 0))
    rows = wrong[np.argsort(-weights[wrong].max(axis=1), kind="stable")][:SHOWN]
    return rows, weights[rows]


def _maps(fitted: Fitted, columns: Columns, said: Array) -> list[list[Array]]:
    """Grad-CAM of what is said and of what is meant, one a row; none where there are no planes."""
    if not hasattr(fitted.model, "seen"):
        return []
    device = next(fitted.model.parameters()).device
    batch = fitted.objective.collate(columns, torch.Generator().manual_seed(0)).to(device)
    return [
        [
            attribution.grad_cam(fitted.model, features[None], number)[0].cpu().numpy()
            for features, number in zip(batch.inputs["features"], numbers.tolist(), strict=True)
        ]
        for numbers in (said, np.asarray(columns["label"]))
    ]


def _cell(line: str, pictures: list[Array]) -> Array:
    """Pictures side by side below a line of text, uint8 (height, width, 3)."""
    from PIL import ImageDraw  # noqa: PLC0415 - of an extra

    body = tiled([pictures])
    image = pillow().new("RGB", (body.shape[1], STRIP), "white")
    said = line.encode("latin-1", "replace").decode("latin-1")  # of which the font has characters
    ImageDraw.Draw(image).text((8, 2), said, fill="black")
    return np.concatenate([np.asarray(image), body])
