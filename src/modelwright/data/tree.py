"""Media files of a folder or container, with the notes beside them that say what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from modelwright.data.archive import MAX_MEMBERS, TooLarge, names_in
from modelwright.data.media_types import sniff_mime
from modelwright.data.parts import FAULTS, Piece, cut_lines, pieces, reason, wanted
from modelwright.data.readers.reader import CUT_BYTES, Bad, Range, is_container

MAX_NOTE_BYTES = 512 << 20  # COCO's boxes of 118,287 pictures are 448 MiB
_YEAR = re.compile(r"(19|20)\d\d$")  # train2017, of COCO
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "dev": "dev"}
_PARTS |= {"val": "validation", "valid": "validation", "validation": "validation"}
_PLAIN = {"images", "image", "img", "imgs", "jpegimages", "pictures", "photos", "data", "files"}
_PLAIN |= {"wav", "wavs", "flac", "audio", "speech", "clips", "recordings", "sounds"}
_PLAIN |= {"clean", "media", "samples"}


@lru_cache(maxsize=8)
def _listed(folder: Path, _changed: int, suffixes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Names relative to a folder in order and sizes; kept, since many ranges ask for them."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            found.append((name.as_posix(), path.stat().st_size))
    return sorted(found)


def listed(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(name, bytes) of the files below a folder whose names end so, in order of name."""
    return _listed(folder, folder.stat().st_mtime_ns, suffixes)


def names_of(path: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files of a folder or container that end so, in order, hidden ones apart."""
    if path.is_dir():
        return [name for name, _ in listed(path, suffixes)]
    return [name for name in names_in(path, MAX_MEMBERS) if wanted(name, suffixes)]


def cut_tree(path: Path, suffixes: tuple[str, ...]) -> list[Range]:
    """Ranges of about 64 MiB of a folder's files by number, or of a plain tar's members."""
    if not path.is_dir():
        return cut_lines(path) if path.suffix.lower() == ".tar" else [Range()]
    ranges, start, size = [], 0, 0
    files = listed(path, suffixes)
    for number, (_, length) in enumerate(files, start=1):
        size += length
        if size >= CUT_BYTES or number == len(files):
            ranges.append(Range(start, number))
            start, size = number, 0
    return ranges or [Range()]


def media_files(
    path: Path, part: Range, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, bytes] | Bad]:
    """(name, content) of the media files of a range, links and what leads outside apart."""
    if path.is_dir():
        for name, _ in listed(path, suffixes)[part.start : part.end]:
            if (path / name).is_symlink() and not _inside(path / name, path):
                yield Bad(name, "a link that leads out of the folder is refused")
                continue
            try:
                with (path / name).open("rb") as stream:
                    yield name, Piece(name, stream).whole()
            except FAULTS as error:
                yield Bad(name, reason(error))
        return
    for piece in pieces(path, part, suffixes):
        if isinstance(piece, Bad):
            yield piece
            continue
        try:
            content = piece.whole()
        except FAULTS as error:
            yield Bad(piece.name, reason(error))
            if not isinstance(error, TooLarge):
                continue
        else:
            yield piece.name or path.name, content


def sniffed(
    path: Path, part: Range, suffixes: tuple[str, ...], kind: str, what: str
) -> Iterator[tuple[str, bytes, str] | Bad]:
    """(name, content, media type) of those media files of a range that begin as ``kind`` does."""
    for item in media_files(path, part, suffixes):
        if isinstance(item, Bad):
            yield item
            continue
        name, content = item
        mime = sniff_mime(content)
        if mime.startswith(f"{kind}/"):
            yield name, content, mime
        else:
            yield Bad(name, f"not {what} of a known format")


def notes(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes] | Bad]:
    """(name, content) of the notes in a folder or container, and of those beside a container.

    Only names and sizes are looked at to find them; what cannot be read is ``Bad``.
    """
    if not path.is_dir() and is_container(path.name):
        for piece in pieces(path, Range(), suffixes):
            if isinstance(piece, Bad):
                return  # said once, by whoever reads the media
            try:
                yield piece.name, piece.whole(MAX_NOTE_BYTES)
            except FAULTS as error:
                yield Bad(piece.name, reason(error))
    folder = path if path.is_dir() else path.parent
    whole = path.is_dir()
    names = [n for n, _ in listed(folder, suffixes)] if whole else _beside(folder, suffixes)
    for name in names:
        try:
            with (folder / name).open("rb") as stream:
                yield name, Piece(name, stream).whole(MAX_NOTE_BYTES)
        except FAULTS as error:
            yield Bad(name, reason(error))


def _beside(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def label_of(name: str) -> str | None:
    """The label that a file's folder names, where it is not only a part or kind of the data.

    >>> label_of("train/n01440764/a.JPEG")
    'n01440764'
    """
    folder = PurePosixPath(name).parent.name
    plain = not folder or folder.lower() in _PLAIN or _part(folder) is not None
    return None if plain else folder


def part_of(name: str) -> str | None:
    """The part of the data (train, validation, test) that a folder above a file names."""
    found = map(_part, PurePosixPath(name).parent.parts)
    return next((part for part in found if part is not None), None)


def _part(folder: str) -> str | None:
    return _PARTS.get(_YEAR.sub("", folder.lower()))
