"""A contact sheet: rows beside what augmentation makes of them, to be looked at before training.

Images and recordings (as spectrograms) become a PNG, texts a page of HTML.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.data import pictures, sounds
from modelwright.data.augment import Line, chain, generator, rows
from modelwright.errors import ModelwrightError
from modelwright.files import replace_file

if TYPE_CHECKING:
    from modelwright.types import Array

SIDE = 112  # pixels of a picture on the sheet
GAP = 6
_BANDS, _WINDOW, _SECONDS = 64, 512, 4.0  # of a spectrogram: its height, FFT, and longest part
_DECIBELS = 70.0  # from the loudest to black
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #ccc;padding:.4em .6em;"
    "vertical-align:top;text-align:left;white-space:pre-wrap}th{background:#f4f4f4}"
)


def contact_sheet(
    found: Sequence[Mapping[str, Any]],
    lines: Sequence[Line],
    path: Path,
    *,
    views: int = 5,
    seed: int = 1,
) -> Path:
    """Draw rows of one modality, the original first, then ``views`` views of each.

    Args:
        found: rows of a corpus (text, image or audio), some ten of them.
        lines: the ``augment`` section of the corpus.
        path: where to; its suffix becomes .png, or .html for texts.
        views: how many views of each row.
        seed: of the corpus. The first view is the one the corpus has.

    Returns:
        The file that was written.

    Raises:
        ModelwrightError: no rows, of different modalities, or no transform is for them.
    """
    transforms = chain(lines)
    rows.check(transforms)
    modalities = {row["modality"] for row in found}
    if len(modalities) != 1 or not modalities <= {"text", "image", "audio"}:
        said = ", ".join(sorted(modalities)) or "none"
        raise ModelwrightError(
            f"contact sheet: rows of one modality are meant, text, image or audio; these: {said}"
        )
    table = []
    for row in found:
        made = [
            rows.view(dict(row), transforms, generator(seed, "augment", row["id"], number)) or row
            for number in range(views)
        ]
        table.append([row, *made])
    if modalities == {"text"}:
        path = path.with_suffix(".html")
        replace_file(path, _page(table, lines).encode())
        return path
    show = _thumbnail if modalities == {"image"} else _spectrogram
    cells = [[show(row["media"]) for row in line] for line in table]
    path = path.with_suffix(".png")
    replace_file(path, pictures.encode_png(tiled(cells)))
    return path


def tiled(cells: Sequence[Sequence[Array]]) -> Array:
    """Pictures (height, width, 3) in rows and columns on white, the first column set apart."""
    tall = max(c.shape[0] for line in cells for c in line)
    wide = max(c.shape[1] for line in cells for c in line)
    columns = len(cells[0])
    size = (len(cells) * (tall + GAP) + GAP, columns * (wide + GAP) + 3 * GAP, 3)
    sheet = np.full(size, 255, dtype=np.uint8)
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            top = GAP + y * (tall + GAP)
            left = GAP + x * (wide + GAP) + (2 * GAP if x else 0)
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _thumbnail(media: bytes) -> Array:
    """The picture with its longer side at ``SIDE`` pixels."""
    pixels, _ = pictures.decode(media)
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    small = pictures.resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2))


def _spectrogram(media: bytes) -> Array:
    """Power by time and frequency in dB, low frequencies below, loud ones bright."""
    samples, rate = sounds.decode(media)
    sound = sounds.mono(samples)[: int(_SECONDS * rate)]
    sound = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
    hop = max(1, (len(sound) - _WINDOW) // (2 * SIDE) + 1)
    pieces = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::hop]
    power = np.abs(np.fft.rfft(pieces * np.hanning(_WINDOW))) ** 2
    banded = power[:, 1:].reshape(len(power), _BANDS, -1).mean(axis=2)
    level = 10 * np.log10(np.maximum(banded, 1e-10))
    shown = np.clip((level - level.max() + _DECIBELS) / _DECIBELS, 0, 1).T[::-1]
    ramp = np.stack([shown, shown**2, 0.35 + 0.4 * shown - 0.75 * shown**3], axis=2)
    return np.asarray(np.clip(255 * ramp, 0, 255).astype(np.uint8))


def _page(table: Sequence[Sequence[Mapping[str, Any]]], lines: Sequence[Line]) -> str:
    """A table, one row a text; what comes from the data is escaped."""
    out = io.StringIO()
    out.write("<!doctype html><html lang='en'><meta charset='utf-8'><title>Augmentation</title>")
    out.write(f"<style>{_STYLE}</style><h1>Augmentation</h1><p>{html.escape(str(list(lines)))}</p>")
    heads = ["original", *(f"view {n}" for n in range(1, len(table[0])))]
    out.write("<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>")
    for line in table:
        cells = (html.escape(str(row.get("text") or "")[:600]) for row in line)
        out.write("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    out.write("</table></html>")
    return out.getvalue()
