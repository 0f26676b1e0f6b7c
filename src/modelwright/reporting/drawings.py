"""The pictures that a model made while it learned, put into the page itself."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from modelwright.reporting.blocks import shorten
from modelwright.reporting.record import Record, number, text

VERSIONS = 6  # pictures over time of one kind
LARGEST = 2 << 20  # bytes of a picture that goes into the page
PNG = b"\x89PNG\r\n\x1a\n"
NAME = re.compile(r"[\w-]{1,100}\.png")  # in samples/ and nowhere else


@dataclass(frozen=True)
class Drawings:
    """Pictures of one kind: (step, data URI), the first and the last among them."""

    stage: str
    said: str
    pictures: list[tuple[str, str]]
    left_out: int


def drawings(record: Record) -> list[Drawings]:
    """The pictures that samples/ names, by stage and kind; one that is not sound is a problem."""
    shown = []
    for stage, lines in record.samples.items():
        kinds: dict[str, list[tuple[str, str]]] = {}
        for line in lines:
            if "image" in line:
                step = number(line.get("step"))
                at = "-" if step is None else f"{step:,.0f}"
                kinds.setdefault(text(line.get("prompt")), []).append((at, text(line["image"])))
        for said, named in kinds.items():
            last = len(named) - 1
            keep = sorted({round(i * last / (VERSIONS - 1)) for i in range(VERSIONS)})
            found = [(named[i][0], _uri(record, named[i][1])) for i in keep]
            pictures = [(at, uri) for at, uri in found if uri]
            shown.append(Drawings(stage, shorten(said, 300), pictures, len(named) - len(keep)))
    return shown


def _uri(record: Record, name: str) -> str:
    """A PNG file of samples/ as a data URI; empty, and a problem noted, where it is none."""
    if not NAME.fullmatch(name):
        record.problems.append(f"samples: {shorten(name, 60)!r} is no name of a picture there")
        return ""
    path: Path = record.path / "samples" / name
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        record.problems.append(f"samples/{name} cannot be read: {error.strerror or error}")
        return ""
    if not content.startswith(PNG) or len(content) > LARGEST:
        record.problems.append(f"samples/{name} is no PNG of at most {LARGEST >> 20} MiB")
        return ""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
