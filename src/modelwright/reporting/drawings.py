"""The pictures and recordings that a model made while it learned, put into the page itself."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from modelwright.reporting.blocks import shorten
from modelwright.reporting.record import Record, number, text

VERSIONS = 6  # pictures over time of one kind
LARGEST = 2 << 20  # bytes of a file that goes into the page
NAME = re.compile(r"[\w-]{1,100}\.(png|wav)")  # in samples/ and nowhere else
KINDS = {  # by its ending, what a file is called, its media type and how it begins
    "png": ("picture", "image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    "wav": ("recording", "audio/wav", re.compile(rb"RIFF.{4}WAVE", re.DOTALL)),
}


@dataclass(frozen=True)
class Drawings:
    """Pictures of one kind: (step, data URI), the first and the last among them.

    ``sound`` is the recording of the last one as a data URI, where it is a recording's.
    """

    stage: str
    said: str
    pictures: list[tuple[str, str]]
    left_out: int
    sound: str = ""


def drawings(record: Record) -> list[Drawings]:
    """The pictures that samples/ names, by stage and kind; one that is not sound is a problem."""
    shown = []
    for stage, lines in record.samples.items():
        kinds: dict[str, list[tuple[str, str]]] = {}
        heard: dict[str, str] = {}
        for line in lines:
            if "image" in line:
                step = number(line.get("step"))
                at = "-" if step is None else f"{step:,.0f}"
                said = text(line.get("prompt"))
                kinds.setdefault(said, []).append((at, text(line["image"])))
                heard[said] = text(line.get("sound"))
        for said, named in kinds.items():
            last = len(named) - 1
            keep = sorted({round(i * last / (VERSIONS - 1)) for i in range(VERSIONS)})
            found = [(named[i][0], data_uri(record, named[i][1], "png")) for i in keep]
            pictures = [(at, uri) for at, uri in found if uri]
            sound = data_uri(record, heard[said], "wav") if heard[said] else ""
            left_out = len(named) - len(keep)
            shown.append(Drawings(stage, shorten(said, 300), pictures, left_out, sound))
    return shown


def data_uri(record: Record, name: str, ending: str) -> str:
    """A file of samples/ as a data URI; empty, and a problem noted, where it is none."""
    kind, mime, begins = KINDS[ending]
    if not (match := NAME.fullmatch(name)) or match[1] != ending:
        record.problems.append(f"samples: {shorten(name, 60)!r} is no name of a {kind} there")
        return ""
    path: Path = record.path / "samples" / name
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        record.problems.append(f"samples/{name} cannot be read: {error.strerror or error}")
        return ""
    if not begins.match(content) or len(content) > LARGEST:
        most = f"at most {LARGEST >> 20} MiB"
        record.problems.append(f"samples/{name} is no {ending.upper()} of {most}")
        return ""
    return f"data:{mime};base64," + base64.b64encode(content).decode("ascii")
