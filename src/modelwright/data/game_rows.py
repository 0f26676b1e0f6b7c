"""Rows of recorded games: PGN of chess, WTHOR of Othello, PDN and lines of checkers.

A row has ``game``, ``moves`` (a text, one word a move), ``result`` (1-0, 0-1, 1/2-1/2 or *, who
begins first), ``position`` where it does not begin at the start, and what the record tells of
``year``, ``white``, ``black``, their ratings (``white_elo``, ``black_elo``) and a ``variant``. What
cannot be read is a row with a ``problem``; what was guessed stands in a ``note``. Rows come in the
order of a hash of their ids, so that the first ones of a base that is sorted by years are of all
years.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.data.readers.pgn import date
from modelwright.data.readers.reader import (
    Bad,
    Passed,
    inner_suffix,
    is_container,
    make_reader,
    new_row,
)
from modelwright.data.waterfall import Note, Problem
from modelwright.errors import ModelwrightError
from modelwright.types import Row

ORIGINS = {
    "chess_pgn": "https://github.com/texium/pgnlearn (pgn/NAME.pgn), or any games in PGN",
    "othello_wthor": "https://www.ffothello.org/informatique/la-base-wthor (.wtb files and .JOU)",
    "checkers_acf": "https://github.com/EricCJoyce/Datasets (Checkers/ACF.txt)",
}
_READERS = {".pgn": "pgn", ".wtb": "wthor", ".pdn": "checkers"}
_NOTES = ("readme", "license", "licence", "source", "index")
_SETS = {"chess_pgn": "pgn", "othello_wthor": "wthor", "checkers_acf": "checkers"}
HELD_OUT_FROM = {"othello_wthor": 2011}  # years from which on games are the test


def is_games(path: Path) -> bool:
    """Whether a file's name is that of recorded games."""
    return bool(_reader(path))


def holds_games(path: Path) -> bool:
    """Whether a path is a file of recorded games, or a folder with one in it."""
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.is_file() and is_games(file) for file in files)


def game_rows(path: Path, reader: str = "", encoding: str = "") -> Iterator[Row]:
    """The games of a file, or of all such files in a folder.

    Args:
        path: a file, packed or not, a tar of them, or a folder.
        reader: of ``data/readers``; left out: by the names of the files.
        encoding: of the files; left out: as their reader guesses it.

    Raises:
        ModelwrightError: there is none.
    """
    files = _files(path, also=".txt" if reader else "") if path.is_dir() else [path]
    if not files or not (reader or _reader(files[0])):
        raise ModelwrightError(f"{path}: no games in it; give .pgn, .wtb or .pdn files")
    rows = [
        row
        for file in files
        for row in _of_file(
            file, file.name if path.is_dir() else "", reader or _reader(file), encoding
        )
    ]
    if not any("problem" not in row for row in rows):
        why = rows[0]["problem"] if rows else "no such file in it"
        raise ModelwrightError(f"{path}: no game of it can be read: {why}; give another file")
    rows.sort(key=lambda row: hashlib.blake2b(str(row["id"]).encode(), digest_size=8).digest())
    return iter(rows)


def set_rows(name: str, folder: Path) -> Iterator[Row]:
    """The games of a public base; ``split`` where it keeps years for its test."""
    first = HELD_OUT_FROM.get(name)
    for row in game_rows(folder, _SETS[name]):
        late = first is not None and row.get("year") is not None and row["year"] >= first
        yield row if first is None else {**row, "split": "test" if late else "train"}


def _files(folder: Path, also: str) -> list[Path]:
    """The files of games below a folder; those that end in ``also`` too, notes apart."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.stem.lower().removeprefix("upstream_") not in _NOTES
        and (_reader(path) or is_container(path.name) or (also and inner_suffix(path.name) == also))
    ]


def _reader(path: Path) -> str:
    return _READERS.get(inner_suffix(path.name), "")


def _of_file(path: Path, key: str, name: str, encoding: str) -> Iterator[Row]:
    settings = {"encoding": encoding} if encoding else {}
    reader, before = make_reader(name, settings), f"{key}:" if key else ""
    for part in reader.cut(path):
        for number, item in enumerate(reader.rows(path, part)):
            if isinstance(item, Bad):
                empty = new_row(item.where or f"bad {number}", "game")
                empty["meta"] = {"game": "", "moves": [], "result": "*"}
                yield {**_row(before, empty), "problem": Problem(item.reason)}
            elif not isinstance(item, Passed):
                yield _row(before, item)


def _row(before: str, item: Mapping[str, Any]) -> Row:
    meta = item["meta"]
    tags = meta.get("tags", {})
    row: dict[str, Any] = {"id": f"{before}{item['id']}", "game": meta["game"]}
    row |= {"moves": " ".join(meta["moves"]), "result": meta["result"]}
    if groups := item["groups"]:
        row["group"] = groups[0]
    row["year"] = meta.get("year") or _number(date(tags)[:4])
    for column, tag in (("white", "White"), ("black", "Black")):
        row[column] = meta.get(column) or tags.get(tag) or ""
        row[f"{column}_elo"] = _number(tags.get(f"{tag}Elo", ""))
    row["position"] = meta.get("position", "")
    row["variant"] = tags.get("Variant", "")
    if guessed := meta.get("encoding"):
        row["note"] = Note(f"not all of it is UTF-8, the rest was read as {guessed}")
    return row


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,4}", text) else None
