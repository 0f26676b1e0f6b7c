"""Reading packed files safely: regular members only, and never more than stated limits."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from modelwright.errors import CorruptError, ModelwrightError

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 8 << 30


def tar_members(
    path: Path,
    *,
    suffix: str = "",
    max_members: int = MAX_MEMBERS,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a tar, in the archive's order.

    Nothing is written to disk, so names cannot escape anywhere; links, devices and folders are
    passed over.

    Args:
        path: A tar, plain or compressed with gzip, bzip2 or xz.
        suffix: Only members whose name ends so.
        max_members: Limit on the number of members of any kind.
        max_member_bytes: Limit on one member's unpacked size.
        max_total_bytes: Limit on the sum of unpacked sizes.

    Raises:
        ModelwrightError: A limit is exceeded.
        CorruptError: The archive is damaged or cut short.
    """
    total = 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for number, member in enumerate(archive):
                total += member.size
                if number >= max_members:
                    raise ModelwrightError(
                        f"{path}: more than {max_members} members: not unpacked; pack fewer"
                    )
                if member.size > max_member_bytes or total > max_total_bytes:
                    raise ModelwrightError(
                        f"{path}: member {member.name!r} exceeds the limit of {max_member_bytes}"
                        f" bytes a file and {max_total_bytes} in all: not unpacked; split it"
                    )
                if not member.isreg() or not member.name.endswith(suffix):
                    continue
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name, content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptError(f"{path}: damaged archive ({error}): get the file again") from error
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from error


PACKERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file as a stream, unpacked if its name ends in ``.gz`` or ``.xz``."""
    packer = PACKERS.get(path.suffix)
    return path.open("rb") if packer is None else cast(IO[bytes], packer(path))


def gunzip(path: Path, *, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """The content of a file, unpacked if its name ends in ``.gz`` or ``.xz``.

    Raises:
        ModelwrightError: It is unreadable or would unpack to more than ``max_bytes``.
        CorruptError: The compressed data are damaged or cut short.
    """
    try:
        with opened(path) as stream:
            content: bytes = stream.read(max_bytes + 1)
    except DAMAGED as error:
        raise CorruptError(f"{path}: damaged file ({error}): get the file again") from error
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > max_bytes:
        raise ModelwrightError(f"{path}: holds more than {max_bytes} bytes: split the file")
    return content
