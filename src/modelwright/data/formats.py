"""File formats: one small function each turns a file into rows.

A reader takes (path, name): where the file lies, and what rows and messages call it. It may
leave ``id`` and ``group`` to the caller. A new format is one function and one entry of READERS.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.archive import DAMAGED, PACKERS, TooLarge, gunzip, opened
from modelwright.data.squad import is_squad, squad_rows
from modelwright.errors import CorruptError, MachineError, ModelwrightError, did_you_mean
from modelwright.types import Array, Row

PIECE_CHARS = 8192
MAX_LINE_BYTES = 256 << 20
MAX_ARRAY_BYTES = 16 << 30
csv.field_size_limit(MAX_LINE_BYTES)

Reader = Callable[[Path, str], Iterator[Row]]


def decode(raw: bytes, name: str, *, offset: int = 0, line: int = 1) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Args:
        raw: The bytes.
        name: What messages call the file.
        offset: Position of ``raw`` in the file, in bytes.
        line: Line of the file on which ``raw`` begins, from 1.

    Raises:
        ModelwrightError: The bytes are in another encoding; says where, and how to re-encode.
    """
    if offset == 0 and raw.startswith(b"\xef\xbb\xbf"):
        raw, offset = raw[3:], 3
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {offset + error.start}, line {line + raw.count(10, 0, error.start)}"
        raise ModelwrightError(
            f"{name}: not UTF-8 at {where} (0x{raw[error.start]:02x}):"
            f" re-encode it, for example: iconv -f {_encoding(raw)} -t UTF-8"
        ) from error
    if raw.count(0) * 4 > len(raw):
        raise ModelwrightError(
            f"{name}: every few bytes are zero, from byte {offset + raw.index(0)}, line {line}:"
            " binary or UTF-16; re-encode text, for example: iconv -f UTF-16 -t UTF-8"
        )
    return text


def _encoding(raw: bytes) -> str:
    """A guess of what bytes that are not UTF-8 are in.

    Chinese takes two bytes a character, so that all runs of high bytes are even; Latin-1's accents
    mostly stand alone.
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return "LATIN1"
    even = all(len(run) % 2 == 0 for run in re.findall(rb"[\x80-\xff]+", raw))
    return "GB18030" if even else "LATIN1"


def read_lines(path: Path, name: str) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, one at a time; packed files are unpacked."""
    try:
        with opened(path) as stream:
            offset, number = 0, 1
            while raw := stream.readline(MAX_LINE_BYTES):
                if len(raw) == MAX_LINE_BYTES:
                    raise ModelwrightError(
                        f"{name}: line {number} is longer than {MAX_LINE_BYTES} bytes: split it"
                    )
                yield decode(raw, name, offset=offset, line=number)
                offset, number = offset + len(raw), number + 1
    except DAMAGED as error:
        raise CorruptError(f"{name}: damaged file ({error}): get the file again") from error
    except TooLarge as error:
        raise ModelwrightError(f"{name}: {error}: a bomb, or pack it anew") from error
    except OSError as error:
        raise ModelwrightError(f"{name}: cannot be read ({error.strerror or error})") from error


def text(path: Path, name: str) -> Iterator[Row]:
    """A text file: one row."""
    yield {"id": name, "text": decode(gunzip(path), name)}


def text_pieces(path: Path, name: str) -> Iterator[Row]:
    """A text file that is a whole corpus: rows of about PIECE_CHARS, cut at blank lines.

    Were it one row, nothing of it could be held out. A stretch of twice that size without a
    blank line is cut at a line's end. Files below two pieces stay whole.
    """
    yield from pieces(decode(gunzip(path), name), name)


def pieces(whole: str, name: str) -> Iterator[Row]:
    """A text as rows of about PIECE_CHARS; see ``text_pieces``."""
    if len(whole) < 2 * PIECE_CHARS:
        yield {"id": name, "text": whole}
        return
    lines: list[str] = []
    size, first = 0, 1
    for number, line in enumerate(io.StringIO(whole, newline="\n"), start=1):
        lines.append(line)
        size += len(line)
        if size >= 2 * PIECE_CHARS or (size >= PIECE_CHARS and not line.strip()):
            yield {"id": f"{name}:{first}", "text": "".join(lines)}
            lines, size, first = [], 0, number + 1
    if lines:
        yield {"id": f"{name}:{first}", "text": "".join(lines)}


def json_lines(path: Path, name: str) -> Iterator[Row]:
    """JSON Lines: one object a line; blank lines are passed over."""
    for number, line in enumerate(read_lines(path, name), start=1):
        if line.strip():
            try:
                value = json.loads(line.rstrip("\n"))
            except (ValueError, RecursionError) as error:
                raise _bad_json(error, f"{name}: line {number}") from error
            yield _record(value, f"{name}:{number}", f"{name}: line {number}")


def json_list(path: Path, name: str) -> Iterator[Row]:
    """A JSON file holding a list of objects, or questions about passages as SQuAD has them."""
    try:
        values = json.loads(decode(gunzip(path), name))
    except (ValueError, RecursionError) as error:
        line = f": line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _bad_json(error, name + line) from error
    if is_squad(values):
        yield from squad_rows(values, name)
        return
    if not isinstance(values, list):
        raise ModelwrightError(
            f"{name}: holds a JSON {_kind(values)}, a list of objects is meant:"
            " write [{...}, {...}] or one object a line in a .jsonl file"
        )
    for number, value in enumerate(values, start=1):
        yield _record(value, f"{name}:{number}", f"{name}: record {number}")


def _bad_json(error: Exception, where: str) -> ModelwrightError:
    if isinstance(error, json.JSONDecodeError):
        where, why = f"{where}, column {error.colno}", error.msg
    else:  # nested too deeply, or a number of thousands of digits
        why = str(error)
    return ModelwrightError(f"{where}: not readable JSON ({why}): correct or remove it")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")


def _record(value: Any, number: str, where: str) -> Row:
    if not isinstance(value, dict):
        raise ModelwrightError(
            f'{where} is a JSON {_kind(value)}, an object is meant: write {{"text": "..."}}'
        )
    return {"id": number, **value}


def comma_separated(path: Path, name: str) -> Iterator[Row]:
    """CSV with a header line; every value is a string.

    A header with more semicolons than commas, as spreadsheets write where the comma is the decimal
    point, or with more tabs, is read by these; what stands in quotes does not count.
    """
    header = re.sub(r'"[^"]*"', "", next(read_lines(path, name), ""))
    by = max((",", ";", "\t"), key=header.count)  # of equally many the first
    return _delimited(path, name, by)


def tab_separated(path: Path, name: str) -> Iterator[Row]:
    """TSV with a header line, quoted like CSV; every value is a string."""
    return _delimited(path, name, "\t")


def _delimited(path: Path, name: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(read_lines(path, name), delimiter=delimiter, strict=True)
    header: list[str] = []
    begun = 1  # the line on which the row that is read begins
    try:
        for values in reader:
            begun = reader.line_num + 1
            if not header:
                header = values
                _check_header(header, name)
            elif len(values) == len(header):
                row = dict(zip(header, values, strict=True))
                yield {"id": f"{name}:{reader.line_num}", **row}
            elif values:
                raise ModelwrightError(
                    f"{name}: line {reader.line_num} has {len(values)} fields, the header has"
                    f" {len(header)}: quote fields that hold {delimiter!r}, or complete the line"
                )
    except csv.Error as error:
        since = f", in a row that begins on line {begun}" if begun < reader.line_num else ""
        raise ModelwrightError(
            f"{name}: line {reader.line_num} cannot be read ({error}{since}): check its quotes"
        ) from error


def _check_header(header: list[str], name: str) -> None:
    for column in header:
        if not column.strip() or header.count(column) > 1:
            raise ModelwrightError(
                f"{name}: line 1 names column {column!r} {header.count(column)} times:"
                " the first line must hold the columns' names, each once and none empty"
            )


def number_table(path: Path, name: str) -> Array:
    """A CSV of numbers as float32 of shape (lines, fields); a first line of names is skipped."""
    rows: list[list[float]] = []
    for number, line in enumerate(read_lines(path, name), start=1):
        fields = line.strip().split(",")
        if fields == [""]:
            continue
        try:
            rows.append([float(field) for field in fields])
        except ValueError as error:
            if number == 1:
                continue
            raise ModelwrightError(f"{name}: line {number}: {error}: numbers are meant") from error
        if len(rows[-1]) != len(rows[0]):
            raise ModelwrightError(
                f"{name}: line {number} has {len(rows[-1])} numbers, the lines before have"
                f" {len(rows[0])}: every frame needs the same features"
            )
    return np.array(rows, dtype=np.float32).reshape(len(rows), -1 if rows else 0)


def array_file(path: Path, name: str) -> Array:
    """The array of a ``.npy`` file; pickled objects are refused."""
    try:
        with path.open("rb") as stream:
            array: Array = np.load(stream, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ModelwrightError(
            f"{name}: not a plain .npy array ({error}): save numbers with numpy.save"
        ) from error
    except OSError as error:
        raise ModelwrightError(f"{name}: cannot be read ({error.strerror or error})") from error
    return array


def frames(path: Path, name: str) -> Array:
    """One sequence of feature vectors, float32 (time, features), from ``.npy`` or ``.csv``."""
    array = number_table(path, name) if path.suffix == ".csv" else array_file(path, name)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise ModelwrightError(
            f"{name}: holds {array.dtype} of shape {array.shape}, numbers of shape"
            " (time, features) are meant, at least one of each"
        )
    values: Array = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        bad = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ModelwrightError(f"{name}: frame {bad} holds NaN or infinity: repair or remove it")
    return values


def arrays(path: Path, name: str) -> Iterator[Row]:
    """A ``.npz`` of arrays with one entry a row: ``x`` and ``y``, and any others.

    Rows are {array name: entry}; where ``y`` is a number or string a row, ``label``, the name of
    its class as a string, is added.
    ``names`` (classes,) names the classes. ``lengths`` (rows,) cuts padded sequences: row i of
    ``x`` is then x[i, :lengths[i]]. Pickled objects are refused.
    """
    columns = _load_npz(path, name)
    names = [str(n) for n in columns.pop("names", np.array([], dtype=str))]
    if "x" not in columns:
        raise ModelwrightError(
            f"{name}: no array 'x'{did_you_mean('x', columns)}; it holds:"
            f" {', '.join(columns) or 'nothing'}: save with numpy.savez(file, x=..., y=...)"
        )
    count = len(columns["x"])
    for column, array in columns.items():
        if len(array) != count:
            raise ModelwrightError(
                f"{name}: array {column!r} has {len(array)} rows, 'x' has {count}:"
                " all but 'names' need one entry a row"
            )
    lengths = columns.pop("lengths", None)
    for i in range(count):
        row = {column: _plain(array[i]) for column, array in columns.items()}
        if lengths is not None:
            row["x"] = columns["x"][i, : int(lengths[i])]
        if "y" in row and not isinstance(row["y"], np.ndarray):
            row["label"] = _class_name(row["y"], names, f"{name}: y[{i}]")
        yield {"id": f"{name}:{i}", **row}


def _class_name(value: Any, names: list[str], where: str) -> str:
    if not names:
        return str(value)
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise ModelwrightError(
            f"{where} is {value!r}, but 'names' names classes 0 to {len(names) - 1}:"
            " correct the label or complete 'names'"
        )
    return names[value]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _load_npz(path: Path, name: str) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
        if size > MAX_ARRAY_BYTES:
            raise ModelwrightError(
                f"{name}: unpacks to {size} bytes, more than {MAX_ARRAY_BYTES}: split it"
            )
        with np.load(path, allow_pickle=False) as stored:
            columns = {key: stored[key] for key in stored.files}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptError(f"{name}: damaged .npz file ({error}): save it again") from error
    except ValueError as error:
        raise ModelwrightError(
            f"{name}: holds pickled objects, which can run code and are refused ({error}):"
            " save plain arrays; sequences of several lengths go padded into 'x' with 'lengths'"
        ) from error
    except OSError as error:
        raise ModelwrightError(f"{name}: cannot be read ({error.strerror or error})") from error
    for key, array in columns.items():
        if array.ndim == 0:
            raise ModelwrightError(f"{name}: array {key!r} is a single value: give one a row")
    return columns


def parquet(path: Path, name: str) -> Iterator[Row]:
    """An Apache Parquet table; values are Python's own."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra: most sources do not need it
        import pyarrow.parquet as table  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"{name}: Parquet needs pyarrow, which is not installed:"
            " pip install 'modelwright[tables]'"
        ) from error
    number = 0
    try:
        with table.ParquetFile(path) as stored:
            for batch in stored.iter_batches():
                for row in batch.to_pylist():
                    yield {"id": f"{name}:{number}", **row}
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise CorruptError(
            f"{name}: not a readable Parquet file ({line}): write it again"
        ) from error


READERS: dict[str, Reader] = {
    ".txt": text,
    ".md": text,
    ".jsonl": json_lines,
    ".json": json_list,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".npz": arrays,
    ".parquet": parquet,
}
PACKED = (
    ".txt",
    ".md",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
)  # may be followed by .gz, .xz, .bz2, .zst
FRAMES = (".npy", ".csv")


def format_of(path: Path) -> str:
    """The suffix that chooses the reader: ``.csv`` for ``table.CSV.gz``, "" if none does."""
    suffix = path.suffix.lower()
    if suffix in PACKERS:
        inner = Path(path.stem).suffix.lower()
        return inner if inner in PACKED else ""
    return suffix if suffix in READERS else ""


def known_formats() -> str:
    """The readable suffixes, for messages."""
    return ", ".join(READERS)
