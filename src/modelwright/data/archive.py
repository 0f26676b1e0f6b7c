"""Reading packed files safely: regular members only, and never more than stated limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from modelwright.errors import CorruptError, MachineError, ModelwrightError

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 8 << 30
MAX_RATIO = 250  # text packs to a tenth, records of numbers to a fiftieth; bombs to a thousandth
FREE_BYTES = 64 << 20  # what may come out of any file, however small
MAX_WINDOW_BYTES = 256 << 20  # memory that one packed stream may ask for


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


class TooLarge(ModelwrightError):
    """More than a stated limit comes out of a file: a bomb, or something to be split."""


class _Frames:
    """A stream of xz or zstandard frames, unpacked; a frame that ends early raises EOFError.

    The standard library's reader of xz takes as much memory as the file asks for, and that of
    zstandard ends in silence where the file is cut; this one does neither. It is fed in small
    chunks, since one byte can unpack to thousands.
    """

    CHUNK = 2048

    def __init__(self, packed: IO[bytes], fresh: Callable[[], Any]) -> None:
        self.packed, self.fresh = packed, fresh
        self.frame: Any = None
        self.ready = memoryview(b"")

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            EOFError: a frame ends before its end mark.
        """
        while not self.ready:
            chunk = b""
            if self.frame is not None and self.frame.eof:
                chunk, self.frame = self.frame.unused_data.lstrip(b"\0"), None
            chunk = chunk or self.packed.read(self.CHUNK)
            if not chunk:
                if self.frame is None:
                    return b""
                raise EOFError("it ends before its end mark")
            self.frame = self.frame or self.fresh()
            self.ready = memoryview(self._fed(chunk))
        given, self.ready = bytes(self.ready[:size]), self.ready[size:]
        return given

    def _fed(self, chunk: bytes) -> bytes:
        try:
            found: bytes = self.frame.decompress(chunk)
        except (lzma.LZMAError, MemoryError):
            raise
        except Exception as error:  # ZstdError, whose module is imported only where it is needed
            raise zlib.error(str(error)) from error
        return found

    def close(self) -> None:
        """Nothing is held; whoever opened the packed stream closes it."""


class _Limited(io.RawIOBase):
    """A stream that raises TooLarge once it has given more than ``most`` bytes."""

    def __init__(self, stream: IO[bytes], most: int, packed: IO[bytes]) -> None:
        super().__init__()
        self.stream, self.most, self.packed, self.given = stream, most, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # One step at a time, so that what comes before a damaged place is not lost with it.
        chunk = self.stream.read1(len(buffer))  # type: ignore[attr-defined]
        got = len(chunk)
        buffer[:got] = chunk
        self.given += got
        if self.given > self.most:
            raise TooLarge(f"unpacks to more than {self.most} bytes, {MAX_RATIO} times its size")
        return got

    def close(self) -> None:
        self.stream.close()
        self.packed.close()  # most unpackers leave that to whoever opened it
        super().close()


def _unxz(packed: IO[bytes]) -> Any:
    return _Frames(packed, lambda: lzma.LZMADecompressor(memlimit=MAX_WINDOW_BYTES))


def _unzstd(packed: IO[bytes]) -> Any:
    try:
        import zstandard  # noqa: PLC0415 - an extra: few files need it
    except ImportError as error:
        raise MachineError(
            ".zst files need zstandard, which is not installed: pip install 'modelwright[data]'"
        ) from error
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    return _Frames(packed, unpacker.decompressobj)


PACKERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed),
    ".xz": _unxz,
    ".bz2": bz2.BZ2File,
    ".zst": _unzstd,
    ".tgz": lambda packed: gzip.GzipFile(fileobj=packed),
    ".txz": _unxz,
}
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


def unpacked(stream: IO[bytes], name: str, size: int) -> IO[bytes]:
    """A stream unpacked as ``name`` ends: .gz .xz .bz2 .zst; otherwise as it is.

    Args:
        stream: the packed bytes.
        name: the name of what is read.
        size: how many bytes are packed; more than MAX_RATIO times as many (and FREE_BYTES) raise
            TooLarge when they are read.
    """
    packer = PACKERS.get(PurePosixPath(name.lower()).suffix)
    return stream if packer is None else limited(packer(stream), size, stream)


def limited(stream: IO[bytes], size: int, packed: IO[bytes] | None = None) -> IO[bytes]:
    """A stream that gives at most MAX_RATIO times ``size`` bytes, or FREE_BYTES if that is more.

    Reading on raises TooLarge. Closing it closes ``packed`` too.
    """
    most = max(FREE_BYTES, MAX_RATIO * size)
    return cast(IO[bytes], io.BufferedReader(_Limited(stream, most, packed or stream), 1 << 18))


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file as a stream, unpacked if its name ends in .gz, .xz, .bz2 or .zst."""
    stream = path.open("rb")
    try:
        return unpacked(stream, path.name, os.fstat(stream.fileno()).st_size)
    except BaseException:
        stream.close()
        raise


def names_in(path: Path, most: int = 20_000) -> list[str]:
    """The names of the first regular members of a tar or zip; fewer where it is damaged."""
    found: list[str] = []
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                return [m.filename for m in archive.infolist()[:most] if not m.is_dir()]
        with opened(path) as packed, tarfile.open(fileobj=packed, mode="r|") as members:
            found.extend(m.name for m in islice(members, most) if m.isreg())
    except (*DAMAGED, tarfile.TarError, zipfile.BadZipFile, OSError, TooLarge):
        pass  # its reading says so, with the place
    return found


def gunzip(path: Path, *, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """The content of a file, unpacked if its name ends in .gz, .xz, .bz2 or .zst.

    Raises:
        ModelwrightError: It is unreadable or would unpack to more than ``max_bytes``.
        CorruptError: The compressed data are damaged or cut short.
    """
    try:
        with opened(path) as stream:
            content: bytes = stream.read(max_bytes + 1)
    except DAMAGED as error:
        raise CorruptError(f"{path}: damaged file ({error}): get the file again") from error
    except TooLarge as error:
        raise ModelwrightError(f"{path}: {error}: a bomb, or pack it anew") from error
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > max_bytes:
        raise ModelwrightError(f"{path}: holds more than {max_bytes} bytes: split the file")
    return content
