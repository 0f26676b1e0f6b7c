"""Records with named columns as rows: which column is the text, which the label, and so on."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

from modelwright.data.media_types import modality_of, sniff_mime
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import Bad, new_row
from modelwright.errors import did_you_mean


@dataclass(frozen=True)
class Columned:
    """What the columns of a record mean; those that are not named go into ``meta``.

    Attributes:
        text: the column of the text, a string or a list of lines; "" for records without, which
            are of modality "table".
        label: the column of the label, where a record has it.
        group: a column whose equal values a split must not tear.
        key: a column that makes the id, unique in its file; "" counts lines or records.
        media: a column of bytes, or of {bytes, path} as the Hugging Face hub stores pictures
            and sounds.
    """

    text: str = "text"
    label: str = "label"
    group: str = ""
    key: str = ""
    media: str = ""

    def row(self, number: str, record: Any, where: str) -> WorkRow | Bad:
        """A record as a row, or why it is none.

        Args:
            number: its id where no column makes one.
            record: the record, meant to be a dict.
            where: its place, for messages.
        """
        if not isinstance(record, dict):
            return Bad(where, "not an object with named columns")
        rest = dict(record)
        row = new_row(number)
        for column in (self.media or self.text, self.key, self.group):
            if column and column not in rest:
                hint = did_you_mean(column, rest)
                known = ", ".join(map(str, list(rest)[:20]))
                return Bad(where, f"no column {column!r}{hint}; it has: {known}"[:400])
        if self.media:
            media = _bytes(rest.pop(self.media))
            if not media:
                return Bad(where, f"column {self.media!r} holds no bytes")
            mime = sniff_mime(media)
            row |= {"media": media, "mime": mime, "modality": modality_of(mime)}
        if self.text in rest:
            text = rest.pop(self.text)
            if isinstance(text, list) and all(isinstance(line, str) for line in text):
                text = "\n".join(text)
            if not isinstance(text, str):
                return Bad(where, f"column {self.text!r} is no text")
            if not _encodable(text):
                return Bad(where, f"column {self.text!r} holds half a character")
            row["text"] = text
        elif not self.media:
            row["modality"] = "table"
        if self.key:
            row["id"] = str(rest.pop(self.key))
        if self.group:
            row["groups"] = [f"{self.group}={rest[self.group]}"]
        if (label := rest.pop(self.label, None)) is not None:
            row["label"] = str(label)
        row["meta"] = plain(rest)
        return row


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes")
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes in base64, dates and the like as they print."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
