"""Rows of recordings: a folder, or a tar of them, with the transcripts that lie beside them.

``audio`` holds the bytes of the file as they are; who needs its samples decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from modelwright.data import sounds
from modelwright.data.archive import tar_members
from modelwright.data.media_types import SOUNDS, UNREAD_SOUNDS
from modelwright.data.operations.operation import WorkRow
from modelwright.data.pictures import Undecodable
from modelwright.data.readers.audio import NOTES, TABLES, Reader
from modelwright.data.readers.reader import Bad
from modelwright.data.tree import names_of
from modelwright.data.waterfall import Problem
from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.types import Row, Sound

_NAMES = ("audio", "sound", "wav")  # columns in which recordings are looked for


def is_sound(name: str | Path) -> bool:
    """Whether a name ends as a recording's does."""
    return PurePosixPath(name).suffix.lower() in SOUNDS


def is_unread(name: str | Path) -> bool:
    """Whether a name ends as that of a recording does which is of a kind that is not read."""
    return PurePosixPath(name).suffix.lower() in UNREAD_SOUNDS


def are_recordings(files: Sequence[Path]) -> bool:
    """Whether the files of a folder are recordings with their notes, or would be if converted."""
    if any(map(is_sound, files)):
        return True
    others = {file.name.lower() for file in files if not is_unread(file)}
    return any(map(is_unread, files)) and others <= set(TABLES)


def is_sound_tar(path: Path) -> bool:
    """Whether the first member of a tar that is a recording or a picture is a recording."""
    return any(is_sound(name) or is_unread(name) for name, _ in _first(path))


def _first(path: Path) -> Iterator[tuple[str, bytes]]:
    for name, content in tar_members(path):
        if is_sound(name) or "." in PurePosixPath(name).name:
            yield name, content
            return


def sound_rows(path: Path) -> Iterator[Row]:
    """``audio``, and ``text``, ``label``, ``speaker`` and ``split`` where names or notes give them.

    What cannot be read is a row with a ``problem`` and without ``audio``: a file that holds no
    recording, in its place, and at the end files of kinds that are not read, and transcripts
    without a recording.

    Args:
        path: a folder of recordings, a tar of them, or a folder with one such tar. Transcripts
            are those of ``metadata.csv`` (LJSpeech), ``*.trans.txt`` (LibriSpeech), or a .txt or
            .lab of a recording's name; for a tar they may lie beside it. A recording that they
            forget has an empty ``text``.

    Raises:
        ModelwrightError: there is no recording that can be read.
        CorruptError: the tar itself, or a file of transcripts, cannot be read.
    """
    whole, first = False, ""
    for row in _rows(packed_or_folder(path), Reader()):
        if "problem" not in row:
            whole = True
        elif not first:
            first = f"; {row['id']}: {row['problem']}"
        yield row
    if not whole:
        raise ModelwrightError(f"{path}: no recording in it; readable: {', '.join(SOUNDS)}{first}")


def _rows(place: Path, reader: Reader) -> Iterator[Row]:
    texts, seen = reader.transcripts(place), set[str]()
    for part in reader.cut(place):
        for item in reader.rows(place, part):
            found, problem = _found(item, place, reader)
            seen.add(PurePosixPath(found["id"]).stem)
            yield _row(found, problem, told=bool(texts))
    for name in names_of(place, UNREAD_SOUNDS):
        seen.add(PurePosixPath(name).stem)
        kind = PurePosixPath(name).suffix.lower()
        problem = f"files in {kind} are not read, convert them to .wav or .flac"
        yield _row(reader.told(place, name), problem, told=bool(texts))
    for key in texts:
        if key not in seen:
            lost = {"id": f"transcript {key}", "audio": b"", "text": texts[key]}
            yield lost | {"problem": Problem("transcript without a recording")}


def _found(item: WorkRow | Bad, place: Path, reader: Reader) -> tuple[WorkRow, str]:
    """What a reader gave, and what is wrong with it; of a bad recording what its name tells."""
    if not isinstance(item, Bad):
        return item, ""
    if not item.where or item.where.lower().endswith(NOTES):
        where = f"{place}: {item.where}" if item.where else str(place)
        raise CorruptError(f"{where}: {item.reason}; get the file again or remove it")
    return reader.told(place, item.where), item.reason


def _row(item: WorkRow, problem: str, *, told: bool) -> Row:
    """What a reader gave as a row; ``told``: there are transcripts."""
    row: dict[str, object] = {"id": item["id"], "audio": item["media"]}
    row |= {k: item[k] for k in ("text", "label") if item.get(k) is not None}
    if told:  # of one that was forgotten there, too: a task gives the reason
        row.setdefault("text", "")
    row |= {k: item["meta"][k] for k in ("speaker", "split") if k in item["meta"]}
    if item["groups"]:
        row["group"] = item["groups"][0]
    return row | {"problem": Problem(problem)} if problem else row


def packed_or_folder(path: Path) -> Path:
    """The tar of a folder that holds one and no recordings of its own, else the path itself."""
    if path.is_dir() and not any(is_sound(p) for p in path.rglob("*")):
        packed = sorted(path.glob("*.tar*"))
        return packed[0] if packed else path
    return path


def recording(row: Row, column: str = "", *, seconds: float = sounds.SECONDS) -> Sound | str:
    """The recording of a row, its channels averaged, or why it has none.

    Args:
        row: with the bytes of a file in ``column``, or with ``samples`` and ``rate``.
        column: left out: ``audio``, ``sound`` or ``wav``.
        seconds: a longer one is not unpacked.

    Raises:
        ModelwrightError: the row has no such column.
    """
    if not column and "samples" in row and "rate" in row:
        return Sound(sounds.mono(row["samples"]).astype("float32"), int(row["rate"]))
    name = column or next((n for n in _NAMES if n in row), "")
    if name not in row:
        known: Sequence[str] = [c for c in row if c not in ("id", "group", "split")]
        raise ModelwrightError(
            f"row {row.get('id', '?')}: no column {column or 'audio'!r}"
            f"{did_you_mean(column or 'audio', known)}; it has: {', '.join(known)}; name the one"
            " that holds the recording with train.options.audio"
        )
    content = row[name]
    if not content:
        return str(row.get("problem") or "no recording")
    if not isinstance(content, bytes):
        raise _no_bytes(row, name)
    try:
        samples, rate = sounds.decode(content, seconds=seconds)
    except Undecodable as error:
        return "recording too long" if "limit" in str(error) else "recording cannot be decoded"
    return Sound(sounds.mono(samples).astype("float32"), rate)


def _no_bytes(row: Row, name: str) -> ModelwrightError:
    """The error for a column that holds something else than a recording."""
    where = f"row {row.get('id', '?')}: column {name!r}"
    if isinstance(row.get("audio"), bytes):  # what the paths of a table name was read already
        return ModelwrightError(f"{where} holds names of files; leave train.options.audio out")
    if isinstance(row[name], str) and is_unread(row[name]):
        return ModelwrightError(
            f"{where} names {row[name][:80]!r}, of a kind that is not read; convert its files, to"
            f" one of {', '.join(SOUNDS)}"
        )
    if isinstance(row[name], str) and is_sound(row[name]):
        return ModelwrightError(
            f"{where} names {row[name][:80]!r}, which is no file seen from the table's folder;"
            " correct the path or put the file there"
        )
    return ModelwrightError(
        f"{where} holds no bytes of a sound file; name another with train.options.audio"
    )
