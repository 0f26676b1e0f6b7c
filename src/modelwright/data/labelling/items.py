"""The rows that a person looks at: texts, and images by their path or pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelwright.data.sources import DATA_SETS, read_rows, require_columns, source_path
from modelwright.data.waterfall import whole_rows
from modelwright.errors import MachineError, ModelwrightError
from modelwright.types import Row

IMAGES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
MAX_PIXELS = 50_000_000


def labelling_rows(source: str, column: str = "text") -> list[Row]:
    """The rows of a source, each with something to look at.

    A folder of images gives rows with ``image`` (a path) and, where the images lie in folders,
    ``label`` (the folder's name). Any other source is read as recipes do; its rows need
    ``column`` (text), ``pixels``, or ``image``, a path beside the source's file.

    Raises:
        ModelwrightError: nothing readable, a row with nothing to show, an image elsewhere.
    """
    if source not in DATA_SETS:
        path = source_path(source)
        if path.is_dir() and (rows := list(_images(path))):
            return rows
    whole, _ = whole_rows(read_rows(source))
    rows = [_placed(row, source) for row in whole]
    if not all("image" in row or "pixels" in row for row in rows):
        require_columns(rows, [column], source)
    return rows


def _images(folder: Path) -> Iterator[Row]:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if file.suffix.lower() in IMAGES and file.is_file() and not hidden:
            row = {"id": name.as_posix(), "group": name.as_posix(), "image": file}
            yield {**row, "label": name.parts[-2]} if len(name.parts) > 1 else row


def _placed(row: Row, source: str) -> Row:
    """An ``image`` that a row names, as a path in the source's own folder."""
    if "image" not in row or not isinstance(row["image"], str):
        return row
    folder = Path(source).expanduser().resolve()
    folder = folder if folder.is_dir() else folder.parent
    path = (folder / row["image"]).resolve()
    if not path.is_relative_to(folder) or path.suffix.lower() not in IMAGES:
        raise ModelwrightError(
            f"{source}: row {row['id']!r} names the image {row['image']!r}, which is no"
            f" {', '.join(IMAGES)} file in the folder of the source; put it there"
        )
    return {**row, "image": path}


def text_of(row: Row, column: str = "text") -> str:
    """What a terminal shows of a row: its text, or where its image lies."""
    value = row.get(column)
    if value is not None and not isinstance(value, (np.ndarray, dict, list)):
        return str(value)
    return f"image: {row['image']}" if "image" in row else f"image of row {row['id']}"


def picture_of(row: Row) -> tuple[bytes, str] | None:
    """A row's image as (bytes, media type), or None where it has none.

    Raises:
        MachineError: the file cannot be read.
    """
    if isinstance(row.get("image"), Path):
        path: Path = row["image"]
        try:
            return path.read_bytes(), IMAGES[path.suffix.lower()]
        except OSError as error:
            raise MachineError(f"{path}: cannot be read ({error.strerror or error})") from None
    pixels = row.get("pixels")
    if isinstance(pixels, np.ndarray) and pixels.ndim in (2, 3) and pixels.dtype == np.uint8:
        return png(pixels), "image/png"
    return None


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG (ISO/IEC 15948) of uint8 pixels (height, width) or (height, width, 3)."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    lines = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pixels_of(row: Row) -> NDArray[np.uint8] | None:
    """A row's image as uint8 (height, width) or (height, width, 3), None where it has none.

    Raises:
        MachineError: Pillow is not installed.
        ModelwrightError: the file is no image, damaged, or larger than MAX_PIXELS.
    """
    pixels = row.get("pixels")
    if isinstance(pixels, np.ndarray):
        return pixels.astype(np.uint8)
    path = row.get("image")
    if not isinstance(path, Path):
        return None
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError:
        raise MachineError(
            "images need Pillow, which is not installed: pip install 'modelwright[data]'"
        ) from None
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ModelwrightError(
                    f"{path}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} in all"
                    " are read; shrink it"
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ModelwrightError(f"{path}: not a readable image ({error}); remove it") from None
