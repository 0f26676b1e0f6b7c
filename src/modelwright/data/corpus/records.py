"""The tables of a corpus on disk: records, decisions, attributes, as Parquet.

Row groups stay below 64 MB of content (a single longer row has one of its own), so whoever reads
or writes holds one at a time, however long the table. The same rows give the same bytes. Pages
carry checksums, which are checked when read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwright.errors import CorruptError, MachineError

GROUP_BYTES = 32 << 20  # a row group is closed when its content passes this
GROUP_ROWS = 50_000
RECORDS, DECISIONS, ATTRIBUTES = "records.parquet", "decisions.parquet", "attributes.parquet"

# name -> type, in Arrow's words; "[string]" is a list of them.
RECORD: Mapping[str, str] = {
    "id": "string",  # "source/key", unique in the corpus and stable
    "source": "string",
    "groups": "[string]",  # what a split must not tear
    "parents": "[string]",  # ids this row was made from
    "modality": "string",  # text, image, audio, game or table
    "text": "string",
    "media": "binary",
    "mime": "string",
    "label": "string",
    "license": "string",
    "language": "string",  # as the step `language` or the source says
    "meta": "string",  # JSON
}
FINAL: Mapping[str, str] = {**RECORD, "split": "string"}  # train, validation or test
DECISION: Mapping[str, str] = {
    "id": "string",
    "kept": "bool",
    "reason": "string",  # of leaving; null where kept
    "step": "string",  # that it left at
    "bytes": "int64",  # of its content as it came in
    "detail": "string",
}
# One measure a line: names differ from unit to unit, and a table has one schema.
ATTRIBUTE: Mapping[str, str] = {
    "id": "string",
    "name": "string",  # "operation.measure"
    "number": "float64",  # where it is a number; true is 1
    "text": "string",  # where it is text, or a list as JSON
}
_FEW = ("source", "groups", "modality", "mime", "label", "license", "language", "split", "name")
_META = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
LANGUAGE = "language.language"  # the measure that the column language is filled with


def arrow() -> Any:
    """The library pyarrow, with its Parquet part loaded.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            "a corpus needs pyarrow, which is not installed: pip install 'modelwright[data]'"
        ) from error
    return pa


def schema(columns: Mapping[str, str]) -> Any:
    """The Arrow schema of a table."""
    pa = arrow()
    types = {
        "string": pa.string(),
        "binary": pa.binary(),
        "bool": pa.bool_(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "[string]": pa.list_(pa.string()),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


class Writer:
    """Writes one table, row by row; use it in a ``with`` block."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self._pa, self._schema = arrow(), schema(columns)
        self._names = tuple(columns)
        self._texts = tuple(n for n in columns if columns[n] in ("string", "[string]"))
        self._writer = self._pa.parquet.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[
                f"{n}.list.element" if columns[n] == "[string]" else n
                for n in columns
                if n in _FEW or (n == "id" and "number" in columns)
            ],
            write_statistics=["id"],
            write_page_checksum=True,
            store_schema=False,
        )
        self._rows: list[Sequence[Any]] = []
        self._bytes = 0
        self.rows = 0

    def add(self, values: Sequence[Any], size: int) -> None:
        """Add a row: its values in the order of the columns, and about how many bytes it is."""
        self._rows.append(values)
        self.rows += 1
        self._bytes += size
        if self._bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a row group."""
        if not self._rows:
            return
        columns = dict(zip(self._names, map(list, zip(*self._rows, strict=True)), strict=True))
        self._rows.clear()
        self._bytes = 0
        try:
            table = self._pa.table(columns, schema=self._schema)
        except UnicodeEncodeError:  # a lone half of a UTF-16 pair, which UTF-8 cannot hold
            for name in self._texts:
                columns[name] = [_encodable(value) for value in columns[name]]
            table = self._pa.table(columns, schema=self._schema)
        self._writer.write_table(table, row_group_size=len(table))

    def write_table(self, table: Any) -> None:
        """Write an Arrow table of this schema as a row group, after what was added before."""
        self.flush()
        if len(table):
            self.rows += len(table)
            self._writer.write_table(table, row_group_size=len(table))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self._writer.close()


def encodable(text: str) -> str:
    """The text with lone halves of UTF-16 pairs, which no UTF-8 can hold, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encodable(value: Any) -> Any:
    if isinstance(value, list):
        return [_encodable(part) for part in value]
    return encodable(value) if isinstance(value, str) else value


def record_values(row: Mapping[str, Any]) -> list[Any]:
    """A row's values in the order of ``RECORD``."""
    meta = row.get("meta")
    values = [row.get(name) for name in RECORD]
    values[-2] = row.get("attributes", {}).get(LANGUAGE) or (meta or {}).get("language")
    values[-1] = _META(meta) if meta else "{}"
    return values


def attribute_values(id_: str, name: str, value: Any) -> list[Any]:
    """A measure as a line of the attributes."""
    if isinstance(value, bool | int | float):
        return [id_, name, float(value), None]
    return [id_, name, None, value if isinstance(value, str) else json.dumps(value)]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A damaged table is said to be one, with its name."""
    pa = arrow()
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptError(f"{path}: missing; run `modelwright data run` again") from error
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise CorruptError(f"{path}: damaged ({line}); delete its folder and run again") from error


def groups(
    path: Path, columns: Sequence[str] | None = None, *, coded: Sequence[str] = ()
) -> Iterator[Any]:
    """The row groups of a table, one Arrow table at a time.

    Args:
        path: of the table.
        columns: those to read; left out: all.
        coded: columns to leave as codes of a dictionary, as they are stored.

    Raises:
        CorruptError: the file is missing or damaged.
    """
    pa = arrow()
    with _told(path):
        stored = pa.parquet.ParquetFile(
            path, page_checksum_verification=True, read_dictionary=list(coded)
        )
    with stored:
        for number in range(stored.num_row_groups):
            with _told(path):
                table = stored.read_row_group(number, columns=list(columns) if columns else None)
            yield table


def rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table as dicts; one row group is held at a time."""
    for table in groups(path, columns):
        for batch in table.to_batches(max_chunksize=1000):
            yield from batch.to_pylist()


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of the rows that have a text."""
    for table in groups(path, ("id", "text")):
        for batch in table.to_batches(max_chunksize=1000):
            pairs: Iterable[tuple[str, str | None]] = zip(
                batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True
            )
            yield from ((name, text) for name, text in pairs if text is not None)


def where(path: Path, id_: str) -> list[dict[str, Any]]:
    """The rows of a table with this id; row groups that cannot hold it are passed over."""
    pa = arrow()
    with _told(path):
        table = pa.parquet.read_table(
            path, filters=[("id", "=", id_)], page_checksum_verification=True, use_threads=False
        )
    found: list[dict[str, Any]] = table.to_pylist()
    return found
