"""Arrow IPC files and streams, as Feather and the Hugging Face libraries write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.columned import Columned
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import CUT_BYTES, Bad, Range
from modelwright.errors import MachineError

_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class Reader(Columned):
    """Records of an Arrow file; a stream, which has no list of its batches, is one range."""

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc")
    folders: ClassVar[bool] = False

    def cut(self, path: Path) -> list[Range]:
        """Ranges of record batches of about 64 MiB each."""
        arrow = _arrow(path)
        if not _is_file(path) or path.stat().st_size <= CUT_BYTES:
            return [Range()]
        try:
            with arrow.memory_map(str(path)) as mapped, arrow.ipc.open_file(mapped) as stored:
                counts = [stored.get_batch(i).num_rows for i in range(stored.num_record_batches)]
        except (arrow.ArrowException, OSError):
            return [Range()]
        each = max(1, len(counts) * CUT_BYTES // path.stat().st_size)
        starts = range(0, len(counts), each)
        return [Range(s, s + each, 1 + sum(counts[:s])) for s in starts] or [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[WorkRow | Bad]:
        """One row a record; its id is its number in the file, from 1."""
        arrow = _arrow(path)
        number = part.first
        try:
            for batch in _batches(arrow, path, part):
                for i in range(batch.num_rows):
                    record = {
                        name: batch.column(j)[i].as_py()
                        for j, name in enumerate(batch.schema.names)
                    }
                    yield self.row(str(number), record, f"row {number}")
                    number += 1
        except (arrow.ArrowException, OSError, EOFError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield Bad(f"row {number}", f"damaged or cut short ({line})"[:300])


def _batches(arrow: Any, path: Path, part: Range) -> Iterator[Any]:
    with arrow.OSFile(str(path)) as stream:
        if not _is_file(path):
            with arrow.ipc.open_stream(stream) as batches:
                yield from batches
            return
        with arrow.ipc.open_file(stream) as stored:
            for i in range(part.start, min(part.end or 1 << 60, stored.num_record_batches)):
                yield stored.get_batch(i)


def _is_file(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _arrow(path: Path) -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - an extra, and slow to import
        import pyarrow.ipc  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"{path}: needs pyarrow, which is not installed: pip install 'modelwright[data]'"
        ) from error
    return pyarrow
