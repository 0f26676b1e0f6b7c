"""Apache Parquet, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.archive import FREE_BYTES, MAX_RATIO
from modelwright.data.columned import Columned
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import CUT_BYTES, Bad, Range
from modelwright.errors import MachineError

BATCH_ROWS = 256
MAX_GROUP_BYTES = 4 << 30  # of one row group, unpacked: it is read column by column, in pages


@dataclass(frozen=True)
class Reader(Columned):
    """Records of a Parquet file."""

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    folders: ClassVar[bool] = False

    def cut(self, path: Path) -> list[Range]:
        """Ranges of row groups of about 64 MiB unpacked; a file that is damaged is one range."""
        arrow = _arrow(path)
        try:
            with arrow.parquet.ParquetFile(path) as stored:
                about = stored.metadata
                return _grouped(
                    [
                        (about.row_group(i).total_byte_size, about.row_group(i).num_rows)
                        for i in range(about.num_row_groups)
                    ]
                )
        except (arrow.ArrowException, OSError):
            return [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[WorkRow | Bad]:
        """One row a record; its id is its number in the file, from 1."""
        arrow = _arrow(path)
        number = part.first
        try:
            with arrow.parquet.ParquetFile(path) as stored:
                about = stored.metadata
                for group in range(part.start, min(part.end or 1 << 60, about.num_row_groups)):
                    why = _bomb(about.row_group(group))
                    if why:
                        yield Bad(f"row group {group}", why)
                        number += about.row_group(group).num_rows
                        continue
                    budget = _packed_bytes(about.row_group(group)) * MAX_RATIO + FREE_BYTES
                    for record in self._records(path, group, budget):
                        if isinstance(record, Bad):
                            yield Bad(f"row {number}", record.reason)
                            break
                        yield self.row(str(number), record, f"row {number}")
                        number += 1
        except (arrow.ArrowException, OSError, EOFError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield Bad(f"row {number}", f"damaged or cut short ({line})"[:300])

    @staticmethod
    def _records(path: Path, group: int, budget: int) -> Iterator[dict[str, Any] | Bad]:
        """The records of a row group; texts are unpacked one by one, so that a bomb is noticed.

        A text that a million rows share is stored once; read as a dictionary it stays so.
        """
        arrow = _arrow(path)
        with arrow.parquet.ParquetFile(path) as plain:
            shared = [
                field.name
                for field in plain.schema_arrow
                if arrow.types.is_string(field.type) or arrow.types.is_binary(field.type)
            ]
        with arrow.parquet.ParquetFile(
            path, read_dictionary=shared, pre_buffer=False, memory_map=False
        ) as stored:
            batches = stored.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
            for batch in batches:
                columns = [(name, batch.column(name)) for name in batch.schema.names]
                for i in range(batch.num_rows):
                    record = {name: column[i].as_py() for name, column in columns}
                    budget -= sum(
                        len(v) if isinstance(v, str | bytes) else 1 for v in record.values()
                    )
                    if budget < 0:
                        yield Bad("", f"unpacks to more than {MAX_RATIO} times its size")
                        return
                    yield record


def _arrow(path: Path) -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - an extra, and slow to import
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"{path}: needs pyarrow, which is not installed: pip install 'modelwright[data]'"
        ) from error
    return pyarrow


def _packed_bytes(group: Any) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def _bomb(group: Any) -> str:
    size, packed = group.total_byte_size, _packed_bytes(group)
    if size > MAX_GROUP_BYTES:
        return f"unpacks to more than {MAX_GROUP_BYTES} bytes; write smaller row groups"
    if size > max(FREE_BYTES, MAX_RATIO * packed):
        return f"unpacks to more than {MAX_RATIO} times its size"
    return ""


def _grouped(sizes: list[tuple[int, int]]) -> list[Range]:
    """Ranges of row groups, each closed once it holds CUT_BYTES."""
    ranges: list[Range] = []
    start, size, first, rows = 0, 0, 1, 0
    for i, (length, count) in enumerate(sizes, start=1):
        size, rows = size + length, rows + count
        if size >= CUT_BYTES or i == len(sizes):
            ranges.append(Range(start, i, first))
            start, size, first, rows = i, 0, first + rows, 0
    return ranges or [Range()]
