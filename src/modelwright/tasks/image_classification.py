"""Name the class of a picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from modelwright.data.picture_rows import is_picture
from modelwright.data.pictures import OutOfRange, Undecodable, check
from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column, typed_numbers
from modelwright.types import Example, Image, ImageFile, Label, Row, Turn

ARRAYS = ("pixels", "x")  # columns that hold arrays
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
LARGEST = 256 << 20  # bytes of a picture's file that a question may name


class ImageClassification(Task):
    """Rows with a picture and a label.

    Folders of pictures, with a folder a class or a table that names the files, give ``image``,
    the bytes of a file; arrays come as ``pixels`` or ``x``.

    Args:
        image: the column that holds the picture: bytes of a file, an array, or a mapping with
            ``bytes`` as tables of the hub have it; left out: ``image``, ``pixels`` or ``x``.
        label: the column that holds the class.
    """

    codec = "images"
    objective = "classification"
    model = "convnext"  # of the families that learn alike in any cut of a batch: no batch norms
    measure = "accuracy"
    by_class: ClassVar[bool] = True
    specimen: ClassVar[Row] = {
        "id": "a",
        "pixels": np.arange(0, 256, 2, dtype=np.uint8).reshape(16, 8),
        "label": "striped",
    }

    def __init__(self, image: str = "", label: str = "label") -> None:
        self.image, self.label = image, label

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: no label, or a picture that is not whole."""
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        if row[self.label] is None or row[self.label] == "":
            return "no label"
        part = sound_picture(row, self.image)
        if isinstance(part, str):
            return part
        given = Turn("user", (part,))
        return iter([Example((given, Turn("assistant", (Label(str(row[self.label])),), True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.label == example.answer.label)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return example.answer.label

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a picture as a data URL, or of its pixels as a nested JSON list.

        Raises:
            ModelwrightError: it is neither.
        """
        text = text.strip()
        if match := _DATA_URL.match(text):
            try:
                content = base64.b64decode(text[match.end() :], validate=True)
            except ValueError as error:
                raise ModelwrightError(f"question: no base64 ({error}); encode it again") from error
            return (Turn("user", (ImageFile(content, "question"),)),)
        if not text.startswith("["):
            raise ModelwrightError(
                "question: a picture is meant, as data:image/jpeg;base64,... or as a JSON list of"
                " its pixels"
            )
        pixels = typed_numbers(text)
        if pixels.size and (pixels.min() < 0 or pixels.max() > 255 or (pixels % 1).any()):
            raise ModelwrightError("question: pixels are whole numbers 0..255")
        return (Turn("user", (Image(pixels.astype(np.uint8)),)),)

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of what ``request`` reads, or of the path of a picture.

        Raises:
            ModelwrightError: there is no such file.
        """
        if text.strip().startswith(("[", "data:")):
            return self.request(text)
        return (Turn("user", (_file(text.strip()),)),)


def sound_picture(row: Row, column: str = "") -> Image | ImageFile | str:
    """The picture of a row as ``picture_of`` finds it, or why it has none that can be read."""
    part = picture_of(row, column)
    if part is None:
        return "no image"
    if isinstance(part, ImageFile):
        try:
            check(part.content)
        except OutOfRange as error:
            return str(error)
        except Undecodable as error:
            limit = "limit" in str(error)
            return "more pixels than the limit" if limit else "image cannot be decoded"
    return part


def picture_of(row: Row, column: str = "") -> Image | ImageFile | None:
    """The picture of a row, of ``column`` or else ``image``, ``pixels`` or ``x``; None: empty.

    Raises:
        ModelwrightError: there is no such column, or it holds something else.
    """
    name = column or next((n for n in ("image", *ARRAYS) if n in row), "")
    if name not in row:
        named = (c for c, v in row.items() if c != "id" and isinstance(v, str) and is_picture(v))
        if not name and (lost := next(named, None)):
            raise ModelwrightError(
                f"row {row.get('id', '?')}: column {lost!r} names {row[lost][:80]!r}, which is no"
                " file seen from the table's folder, nor is that of another row; correct the paths"
                " or put the files there"
            )
        raise missing_column(row, name or "image", "holds the picture", "image")
    value: Any = row[name]
    if isinstance(value, Mapping):  # {"bytes": ..., "path": ...}
        value = value.get("bytes")
    if value is None or (isinstance(value, bytes | str) and not value):
        return None
    if isinstance(value, bytes):
        return ImageFile(value, str(row.get("id", "?")))
    if isinstance(value, str) or not np.ndim(value):
        known = ", ".join(c for c in row if c not in ROW_COLUMNS)
        raise ModelwrightError(
            f"row {row.get('id', '?')}: column {name!r} holds {str(value)[:60]!r}, neither a"
            f" picture nor the name of one that is there; it has: {known}; name the column"
            " with train.options.image, and files as they lie from the table's folder"
        )
    return Image(np.asarray(value))


def _file(name: str) -> ImageFile:
    """The picture at a path."""
    path = Path(name).expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise ModelwrightError(f"{name}: is larger than {LARGEST >> 20} MiB; make it smaller")
        return ImageFile(path.read_bytes(), name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelwrightError(
            f"{name[:200]}: cannot be read ({reason}); give the path of a picture"
        ) from error
