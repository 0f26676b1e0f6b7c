"""What a reader is: a kind of file, cut into ranges, each of which becomes rows.

A reader never raises for what is wrong in the middle of a file: it gives a ``Bad`` with the
place and goes on with what can still be read, and a ``Passed`` for what is sound but no row. It
raises ModelwrightError only for what makes
every row of the source wrong, such as a setting or a missing library.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from modelwright.data.operations.operation import WorkRow
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked

CUT_BYTES = 64 << 20  # a range is about so long, where a format can be cut at all
MODALITIES = ("text", "image", "audio", "game", "table")
_PACKED = (".gz", ".xz", ".bz2", ".zst")
_CONTAINERS = (".tar", ".zip")
_SAMPLE = 4096
_NOTES = ("readme", "license", "licence", "notice", "source", "index")
SAME_FILE = "@file"  # a group: the file or folder that the row comes from


@dataclass(frozen=True)
class Bad:
    """Something that could not be read: quarantined, counted against the budget.

    Attributes:
        where: the place within the file, such as "line 17" or "a/b.jpg"; "" is the whole file.
        reason: what is wrong with it, one line, shared by all of the same cause where possible.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Passed:
    """A sound record that is not what the reader looks for: counted by reason, held against nobody.

    Attributes:
        reason: a short phrase shared by all of the same cause, such as "redirect".
    """

    reason: str


@dataclass(frozen=True)
class Range:
    """A part of a file; which unit (bytes, row groups, members) is the reader's own business.

    Attributes:
        start: where it begins.
        end: where it ends, exclusive; None is the end of the file.
        first: number of the first line, row or member in it, where rows are called by number.
    """

    start: int = 0
    end: int | None = None
    first: int = 1

    def as_json(self) -> list[int | None]:
        """The range as JSON; ``Range(*json)`` makes it again."""
        return [self.start, self.end, self.first]


Item = WorkRow | Bad | Passed  # what a reader gives


class Reader(Protocol):
    """A kind of file by its settings: a frozen dataclass ``Reader`` in a module of this room.

    ``version`` is raised whenever the same file would give other rows. ``suffixes`` are those of
    the files it reads, without those of packing (.gz .xz .bz2 .zst) and containers (.tar .zip).
    ``folders`` says that it reads a folder (or container) as one whole, because names and
    neighbouring files carry meaning; others read it file by file.
    """

    version: ClassVar[int]
    suffixes: ClassVar[tuple[str, ...]]
    folders: ClassVar[bool]

    def cut(self, path: Path) -> list[Range]:
        """Ranges that cover the file once, in order; they depend on its content alone.

        Raises:
            ModelwrightError: nothing of it can be read; one line.
        """
        ...

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """The rows of a range, made by ``new_row``; ids are unique and stable in the file."""
        ...


def new_row(key: str, modality: str = "text", **columns: Any) -> WorkRow:
    """A row as a reader gives it; who calls the reader completes ``id``, source and licence.

    Args:
        key: its id within the file, such as a line number, a page's id or a member's name.
        modality: one of MODALITIES.
        columns: any of text (str), media (bytes), mime, label (str), groups (list of str: what
            a split must not tear), meta (a dict of JSON values). A row with ``media`` of mime
            text/html and no text is for the step ``extract``; meta["charset"] is then the
            declared encoding, if any. A group that begins with SAME_FILE
            has the file's name there instead.
    """
    row: WorkRow = {"id": key, "modality": modality, "text": None, "media": None, "mime": None}
    row |= {"label": None, "groups": [], "parents": [], "meta": {}, "attributes": {}}
    return row | columns


@dataclass(frozen=True)
class Input:
    """One thing to read: a file, or a folder that is read as a whole.

    Attributes:
        path: where it lies.
        key: its name within the source, which begins the ids of its rows; "" where it is alone.
        reader: a name for ``make_reader``.
    """

    path: Path
    key: str
    reader: str


def read(
    one: Input, reader: Reader, part: Range, *, source: str, license: str | None
) -> Iterator[Item]:
    """The rows of a range with everything that the reader could not know.

    Args:
        one: what is read.
        reader: ``make_reader(one.reader, ...)``.
        part: one of ``reader.cut(one.path)``.
        source: the name of the source, which begins every id: "source/file:key".
        license: the licence of the source.

    Yields:
        Rows complete as in corpus/records.py but for ``meta``, which is still a dict; what is
        bad, its place beginning with the file's name; and what was passed over.
    """
    file = f"{source}/{one.key}" if one.key else source
    joint = ":" if one.key else "/"
    for item in reader.rows(one.path, part):
        if isinstance(item, Bad):
            place = ": ".join(p for p in (one.key or one.path.name, item.where) if p)
            yield Bad(place, item.reason)
            continue
        if isinstance(item, Passed):
            yield item
            continue
        item["id"] = f"{file}{joint}{item['id']}"
        item["groups"] = [
            file + g.removeprefix(SAME_FILE) if g.startswith(SAME_FILE) else g
            for g in item["groups"]
        ]
        item["source"], item["license"] = source, license
        yield item


def names() -> list[str]:
    """The names of all readers."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [m.name for m in found if m.name != "reader"]


def reader_class(name: str) -> type[Any]:
    """The class ``Reader`` of module ``readers/name.py``.

    Raises:
        ModelwrightError: there is none of this name; the nearest is named.
    """
    if name not in names():
        raise ModelwrightError(
            f"reader: no reader {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    found: type[Any] = importlib.import_module(f"modelwright.data.readers.{name}").Reader
    return found


def make_reader(name: str, settings: Mapping[str, Any] | None = None) -> Reader:
    """The reader ``name`` with its settings; a mistyped setting is refused."""
    cls = reader_class(name)
    made: Reader = cls(**checked(f"reader {name}", cls, settings or {}))
    return made


def reader_for(
    path: Path, name: str | None = None, settings: Mapping[str, Any] | None = None
) -> Reader:
    """The reader of a file or folder: the one named, else by suffix, else by its first bytes.

    Raises:
        ModelwrightError: no reader of that name, or none for such a file.
    """
    return make_reader(name or derived(path), settings)


def derived(path: Path) -> str:
    """The name of the reader that fits a file or folder, by its names or first bytes."""
    if path.is_dir():
        return _by_members(path, _files(path))
    known = _by_suffix(path.name) or _by_magic(path)
    if known:
        return known
    if is_container(path.name):
        from modelwright.data.archive import names_in  # noqa: PLC0415 - only needed here

        return _by_members(path, map(Path, names_in(path)))
    raise ModelwrightError(
        f"{path}: no reader for such a file: name one with 'reader:': {', '.join(names())}"
    )


def inner_suffix(name: str) -> str:
    """The suffix that says what a file is: ``.jsonl`` for ``a.JSONL.gz``; "" without one."""
    path = Path(name.lower())
    while path.suffix in _PACKED:
        path = path.with_suffix("")
    return path.suffix


def is_container(name: str) -> bool:
    """Whether a file is a tar or zip, by its name."""
    return inner_suffix(name) in _CONTAINERS or name.lower().endswith((".tgz", ".txz"))


def _by_suffix(name: str) -> str:
    suffix = inner_suffix(name)
    if "pages-articles" in name:
        return "wikipedia"
    return next((n for n in names() if suffix and suffix in reader_class(n).suffixes), "")


def _by_magic(path: Path) -> str:
    from modelwright.data.archive import opened  # noqa: PLC0415 - see above

    if is_container(path.name):
        return ""
    try:
        with opened(path) as stream:
            head = stream.read(_SAMPLE)
    except (OSError, EOFError, ModelwrightError):
        return ""
    if b"<mediawiki" in head:
        return "wikipedia"
    marks = {b"PAR1": "parquet", b"ARROW1": "arrow", b"%PDF-": "pdf", b"WARC/": "warc"}
    marks |= {b"filedesc:": "warc", b"[Event ": "pgn"}
    for mark, name in marks.items():
        if head.startswith(mark):
            return name
    if head.lstrip()[:1] == b"{":
        return "jsonl"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return ""


def _by_members(path: Path, members: Iterable[Path]) -> str:
    """The reader of most files, containers counted as what is in them; or of images or sounds."""
    counts: dict[str, int] = {}
    for member in members:
        name = _by_suffix(member.name)
        if not name and is_container(member.name) and member.is_file():
            try:
                name = derived(member)
            except ModelwrightError:
                continue
        if name:
            counts[name] = counts.get(name, 0) + (not _is_note(member))
    for name in ("images", "audio"):
        if name in counts:
            return name
    if not any(counts.values()):
        raise ModelwrightError(f"{path}: nothing readable in it: name a reader with 'reader:'")
    return max(counts, key=lambda name: (counts[name], name))


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder in order, hidden ones and links apart."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def inputs(
    paths: Sequence[Path], root: Path, name: str | None = None, *, notes: bool = False
) -> list[Input]:
    """What a source is made of: files one by one, or a folder that is read as a whole.

    Args:
        paths: files and folders, as a source names them.
        root: what keys are relative to.
        name: the reader; derived from names and contents when None.
        notes: read README, LICENSE, SOURCE and INDEX files of folders as well.

    Returns:
        The inputs by path; where a reader is derived, files that no reader knows are passed over
        in folders, and refused when they are named.
    """
    found: dict[Path, Input] = {}
    for path in paths:
        if path.is_dir():
            reader = name or derived(path)
            whole = reader_class(reader).folders
            for file in _files(path):
                if not _fits(file.name, reader) or (_is_note(file) and not notes):
                    continue
                if whole and not is_container(file.name):
                    found[path] = Input(path, _key(path, root), reader)
                else:
                    found[file] = Input(file, _key(file, root), reader)
        else:
            found[path] = Input(path, _key(path, root), name or derived(path))
    return [found[path] for path in sorted(found)]


def _is_note(path: Path) -> bool:
    return path.stem.lower().removeprefix("upstream_") in _NOTES


def _fits(name: str, reader: str) -> bool:
    return _by_suffix(name) == reader or is_container(name)


def _key(path: Path, root: Path) -> str:
    try:
        shown = path.relative_to(root)
    except ValueError:
        shown = Path(path.name)
    return shown.as_posix().encode("utf-8", "backslashreplace").decode() if shown.parts else ""
