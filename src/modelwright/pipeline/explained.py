"""What an answer among labels rests on: of a picture its regions, of a text its words.

The methods and what they are worth: ``evaluation/attribution.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from modelwright.data.augment.sheet import tiled
from modelwright.data.pictures import encode_png, resized
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.evaluation import attribution
from modelwright.pipeline.fitted import Fitted
from modelwright.types import Array, Columns, Example, Turn, stack

SIDE = 224  # pixels of a shown picture's longer side, at least
OPACITY, DIMMED = 0.8, 0.7  # of a map's hottest place over the picture; what is left of that
HIGHEST = 99.0  # percentile of integrated gradients that is shown as the hottest


@dataclass(frozen=True)
class Explanation:
    """Why a model answers as it does.

    Attributes:
        label: that is explained.
        probabilities: of all labels, the likeliest first.
        parts: words of a text, or numbers of a vector, in their order, with what each adds to the
            label's logit compared with nothing at its place.
        missing: what the parts, or the pixels, do not account for, in logits.
        picture: uint8 (H, W[, 3]) of a picture as the model sees it.
        maps: of a picture by method, (H, W) in 0..1.
    """

    label: str
    probabilities: Mapping[str, float]
    missing: float
    parts: Sequence[tuple[str, float]] = ()
    picture: Array | None = None
    maps: Mapping[str, Array] = field(default_factory=dict)

    @property
    def sheet(self) -> Array:
        """The picture and each map over it, side by side, uint8 (height, width, 3)."""
        if self.picture is None:
            raise ModelwrightError("explain: this is no picture; its `parts` say what counted")
        cells = [enlarged(self.picture)]
        cells += [enlarged(heated(self.picture, found)) for found in self.maps.values()]
        return tiled([cells])

    @property
    def png(self) -> bytes:
        """``sheet`` as the content of a file."""
        return encode_png(self.sheet)


def explain(fitted: Fitted, given: Sequence[Turn], label: str | None = None) -> Explanation:
    """Why a trained model answers a question as it does, or what speaks for another label.

    Args:
        fitted: a model that chooses among labels.
        given: the question.
        label: to explain; left out: the likeliest.

    Raises:
        ModelwrightError: the model does not choose among labels, has no such label, or reads
            something whose parts cannot be weighed.
        MachineError: captum is not installed.
    """
    codec = cast(Any, fitted.codec)
    labels: list[str] = getattr(codec, "labels", [])
    if not labels or not hasattr(codec, "details"):
        raise ModelwrightError(
            f"{fitted.path}: explain is for models that choose among labels, this one does not"
        )
    if label is not None and label not in labels:
        hint = did_you_mean(label, labels)
        raise ModelwrightError(
            f"explain: no label {label!r}{hint}; known: {', '.join(labels[:20])}"
        )
    columns = stack([codec.encode(Example(tuple(given)))], codec.ragged)
    device = next(fitted.model.parameters()).device
    batch = fitted.objective.collate(columns, torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        outputs = fitted.model(**batch.inputs)
    probabilities: dict[str, float] = codec.details(outputs)[0]["probabilities"]
    name = next(iter(probabilities)) if label is None else label
    for needed, way in WAYS:
        if needed in batch.inputs:
            found: dict[str, Any] = way(fitted, columns, batch.inputs, labels.index(name))
            return Explanation(name, probabilities, **found)
    raise ModelwrightError(
        f"{fitted.path}: explain weighs pixels, numbers and words; this model reads"
        f" {', '.join(batch.inputs)}"
    )


def _of_features(
    fitted: Fitted, columns: Columns, inputs: dict[str, Any], number: int
) -> dict[str, Any]:
    """A picture's maps, or the parts of a vector; nothing is the mean of the train split."""
    model, features = fitted.model, inputs["features"]
    parts = attribution.integrated_gradients(
        lambda x: model(features=x), features, number, torch.zeros_like(features)
    )
    values = parts.values[0].cpu()
    if values.ndim < 2:
        named = [(f"number {i + 1}", float(v)) for i, v in enumerate(values)]
        return {"parts": named, "missing": parts.missing}
    maps = {"integrated gradients": _shown(values)}
    if hasattr(model, "seen"):
        maps = {"Grad-CAM": attribution.grad_cam(model, features, number)[0].cpu().numpy(), **maps}
    picture = as_pixels(np.asarray(columns["features"])[0])
    return {"picture": picture, "maps": maps, "missing": parts.missing}


def _of_tokens(
    fitted: Fitted,
    columns: Columns,  # noqa: ARG001 - the inputs say it all
    inputs: dict[str, Any],
    number: int,
) -> dict[str, Any]:
    """The words of a text; nothing is the end of a text."""
    codec = getattr(fitted.codec, "text", None)
    if codec is None:
        raise ModelwrightError(f"{fitted.path}: explain knows no words of what this model reads")
    chosen: dict[str, Tensor] = {
        name: inputs[name] for name in ("tokens", "types") if name in inputs
    }
    parts = attribution.token_gradients(fitted.model, chosen, number, codec.end)
    tokens = inputs["tokens"].tolist()
    return {"parts": words(codec, tokens, parts.values.tolist()), "missing": parts.missing}


# By the input that a model reads, what weighs it.
WAYS = (("features", _of_features), ("tokens", _of_tokens))


def words(codec: Any, tokens: Sequence[int], values: Sequence[float]) -> list[tuple[str, float]]:
    """Tokens joined to words, each with the sum of its tokens' values.

    Pieces are joined where a character is cut between them, and within words of Latin letters and
    digits; where words are not divided by spaces, as in Chinese, pieces stand alone.
    """
    found: list[tuple[str, float]] = []
    pending: list[int] = []
    total = 0.0
    for token, value in zip(tokens, values, strict=True):
        pending.append(token)
        total += value
        spelled = codec.text(pending)
        if "\ufffd" in spelled:  # a part of a character; the rest follows
            continue
        last = found[-1][0] if found else ""
        if spelled and last and _within(last[-1]) and _within(spelled[0]):
            found[-1] = (last + spelled, found[-1][1] + total)
        else:
            found.append((spelled, total))
        pending, total = [], 0.0
    if pending:
        found.append((codec.text(pending), total))
    return found


def _within(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _shown(values: Tensor) -> Array:
    """Sizes of integrated gradients, (H, W[, C]), as a map in 0..1."""
    sizes = values.abs()
    sizes = sizes.sum(dim=2) if sizes.ndim == 3 else sizes
    most = float(np.percentile(sizes.numpy(), HIGHEST))
    return np.asarray((sizes / (most or 1.0)).clamp(max=1.0).numpy())


def as_pixels(stored: Array) -> Array:
    """A stored picture as uint8 (H, W[, 3]); of other numbers the range is brought to 0..255."""
    if stored.ndim == 3 and stored.shape[2] not in (1, 3):
        stored = stored.mean(axis=2)
    stored = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    if stored.dtype == np.uint8:
        return stored
    low, high = float(stored.min()), float(stored.max())
    scaled = (stored - low) / ((high - low) or 1.0) * 255
    return np.asarray(scaled.round().astype(np.uint8))


def heated(picture: Array, found: Array) -> Array:
    """A map in 0..1 over the dimmed picture in grey, uint8 (H, W, 3): from red to yellow."""
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    base = np.repeat(DIMMED * grey[..., None], 3, axis=2).astype(np.float32)
    heat = np.clip(found, 0, 1)[..., None].astype(np.float32)
    ramp = np.concatenate((np.ones_like(heat), heat, np.zeros_like(heat)), axis=2)
    alpha = OPACITY * heat
    return np.asarray((base * (1 - alpha) + 255 * ramp * alpha).round().astype(np.uint8))


def enlarged(picture: Array, side: int = SIDE) -> Array:
    """A picture as uint8 (H, W, 3), small ones with each pixel as a square, the side reached."""
    pixels = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    height, width = pixels.shape[:2]
    times = max(1, side // max(height, width))
    if times > 1:
        return np.asarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
    scale = min(1.0, 2 * side / max(height, width))
    if scale == 1.0:
        return pixels
    return np.asarray(resized(pixels, max(1, round(width * scale)), max(1, round(height * scale))))
