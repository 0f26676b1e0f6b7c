"""Recordings with their transcripts or labels: LJSpeech, Speech Commands, LibriSpeech, FSDD."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from modelwright.data.lines import MAX_LINE_BYTES, sniff
from modelwright.data.media_types import SOUNDS, UNREAD_SOUNDS
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import Bad, Range, new_row
from modelwright.data.tree import cut_tree, label_of, notes, part_of, sniffed

_FSDD = re.compile(r"(\d)_([A-Za-z]+)_(\d+)")  # digit, speaker, take
_COMMAND = re.compile(r"([0-9a-f]{6,12})_nohash_\d+")  # speaker
_LIBRI = re.compile(r"(\d+)-\d+-\d+")  # speaker, chapter, utterance
_ARCTIC = re.compile(r"\(\s*(\S+)\s+\"(.*)\"\s*\)")
NOTES = (".csv", ".txt", ".lab", ".json")
TABLES = ("metadata.csv", "metadata.txt", "transcripts.txt", "transcripts.csv", "text")


@dataclass
class _Notes:
    texts: dict[str, str]
    facts: dict[str, dict[str, Any]]
    lists: dict[str, str]
    bad: list[Bad]


@dataclass(frozen=True)
class Reader:
    """Sounds; the recordings of one speaker keep together where names or notes tell who speaks."""

    version: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]] = SOUNDS
    folders: ClassVar[bool] = True

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB of recordings."""
        return cut_tree(path, self.suffixes)

    def rows(self, path: Path, part: Range) -> Iterator[WorkRow | Bad]:
        """One row a recording; its id is its name.

        ``media`` are its bytes, not decoded: that is the step ``audio``. ``text`` is the
        transcript from ``metadata.csv`` (id|text, of LJSpeech's three columns the last),
        ``*.trans.txt`` (LibriSpeech), or a .txt or .lab of the same name; ``label`` the digit of
        an FSDD name or the folder (Speech Commands). ``meta`` holds what a JSON of
        {file: {...}} says, and ``split`` where a folder or Speech Commands' lists name one.
        """
        found = _notes(path, path.stat().st_mtime_ns)
        if part.start == 0:
            yield from found.bad
        for item in sniffed(path, part, self.suffixes, "audio", "a recording"):
            yield item if isinstance(item, Bad) else _row(*item, found)

    def told(self, path: Path, name: str) -> WorkRow:
        """What name and notes say of a recording that is not there, or cannot be read."""
        return _row(name, b"", "", _notes(path, path.stat().st_mtime_ns))

    def transcripts(self, path: Path) -> dict[str, str]:
        """The transcripts beside the recordings of ``path``, by the names they are given."""
        return _notes(path, path.stat().st_mtime_ns).texts


def _row(name: str, content: bytes, mime: str, found: _Notes) -> WorkRow:
    path = PurePosixPath(name)
    label, groups = label_of(name), []
    meta: dict[str, Any] = dict(found.facts.get(path.name, {}))
    speaker = meta.get("speaker")
    if match := _FSDD.fullmatch(path.stem):
        label, speaker = match[1], match[2]
        meta["take"] = int(match[3])
    elif match := _COMMAND.fullmatch(path.stem) or _LIBRI.fullmatch(path.stem):
        speaker = match[1]
    if speaker:
        meta["speaker"] = str(speaker)
        groups = [f"speaker={speaker}"]
    text = found.texts.get(path.stem)
    if text is not None and match is not None and match.re is _LIBRI:
        label = None
    ending = f"{path.parent.name}/{path.name}"
    if split := found.lists.get(ending) or part_of(name):
        meta["split"] = split
    row = new_row(name, "audio", media=content, mime=mime, label=label, groups=groups, meta=meta)
    return row | {"text": text}


@lru_cache(maxsize=4)
def _notes(path: Path, _changed: int) -> _Notes:
    """Transcripts and facts by name, kept since every range of a source asks for them."""
    found = _Notes({}, {}, {}, [])
    if path.is_file() and path.suffix.lower() in SOUNDS:
        return found
    if csv.field_size_limit() < MAX_LINE_BYTES:
        csv.field_size_limit(MAX_LINE_BYTES)
    for item in notes(path, NOTES):
        if isinstance(item, Bad):
            found.bad.append(item)
            continue
        name, content = item
        try:
            _read_note(PurePosixPath(name), content.decode(sniff(content[:65536])), found)
        except (UnicodeDecodeError, ValueError, csv.Error, RecursionError) as error:
            found.bad.append(Bad(name, f"broken transcripts ({error})"[:200]))
    return found


def _read_note(name: PurePosixPath, text: str, found: _Notes) -> None:
    text = text.removeprefix("\ufeff")
    if name.name.lower() in TABLES:
        _table(text, found)
    elif name.name.endswith(".trans.txt"):
        for line in text.splitlines():
            key, _, said = line.partition(" ")
            found.texts[key] = said.strip()
    elif name.name in ("testing_list.txt", "validation_list.txt"):
        part = "test" if name.name.startswith("test") else "validation"
        found.lists |= dict.fromkeys(text.split(), part)
    elif name.suffix == ".json":
        about = json.loads(text)
        if isinstance(about, dict) and all(isinstance(v, dict) for v in about.values()):
            found.facts |= {str(key): value for key, value in about.items()}
    elif name.suffix == ".csv" or name.stem.lower().removeprefix("upstream_") in _NOT_SPOKEN:
        return
    elif arctic := _ARCTIC.match(text):
        found.texts[arctic[1]] = arctic[2]
    elif text.strip() and "\n" not in text.strip():
        found.texts.setdefault(name.stem, text.strip())


_NOT_SPOKEN = ("readme", "license", "licence", "source", "index", "notice")


def _table(text: str, found: _Notes) -> None:
    """LJSpeech's id|raw|normalised, or a table with a header naming id and text."""
    delimiter = "|" if "|" in text.partition("\n")[0] else "," if "," in text else "\t"
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    rows = csv.reader(text.splitlines(), delimiter=delimiter, quoting=quoting)
    which = (0, -1)
    for number, fields in enumerate(rows):
        lower = [field.strip().lower() for field in fields]
        if number == 0 and lower[0] in ("id", "file", "file_name", "path", "name"):
            spoken = [i for i, n in enumerate(lower) if n in ("text", "transcript", "sentence")]
            which = (0, spoken[0] if spoken else -1)
        elif len(fields) > 1:
            key = PurePosixPath(fields[which[0]].strip())
            stem = key.stem if key.suffix.lower() in SOUNDS + UNREAD_SOUNDS else key.name
            found.texts[stem] = fields[which[1]].strip()
