"""Files behind addresses: fetched once into a cache, checked, and only then named.

A file in the cache is whole and was checked. What is fetched halfway lies beside it as ``.part``
and is gone on with.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from modelwright.errors import CorruptError, MachineError, ModelwrightError, did_you_mean
from modelwright.files import rename

SCHEMES = ("https", "http", "hf", "s3")
TRIES = 4  # a connection that breaks is taken up again where it broke
TIMEOUT_S = 60.0
_BLOCK = 1 << 20
_HUB = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<at>[^/]+))?(?:/(?P<path>.*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
Say = Callable[[str], None]


def is_address(source: str) -> bool:
    """Whether a source is an address and not a path."""
    return "://" in source


def local(source: str, sha256: str | None, cache: Path, say: Say | None = None) -> Path:
    """The local copy of what an address names, fetched if it is not in the cache.

    Args:
        source: ``https://...`` (or http), which needs ``sha256``;
            ``hf://datasets/NAME@COMMIT/FILE``, of which FILE may hold * for a folder of files;
            ``s3://bucket/key`` of any S3-compatible store, its address and keys as botocore takes
            them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).
        sha256: of the file, 64 hexadecimal digits.
        cache: a folder; made if it is not there.
        say: takes a line about what is fetched.

    Raises:
        ModelwrightError: the address is of no known kind, or not pinned.
        CorruptError: what came is another file than ``sha256`` says; it is not kept.
        MachineError: the network or store does not give it, the disk is full, a library is missing.
    """
    scheme = source.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise ModelwrightError(
            f"{source}: no address of a known kind{did_you_mean(scheme, SCHEMES)}:"
            f" {', '.join(s + '://' for s in SCHEMES)} are"
        )
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelwrightError(f"{source}: sha256 is not 64 hexadecimal digits: correct it")
    if scheme == "hf":
        return _hub(source, sha256, cache, say)
    if scheme == "s3":
        return _store(source, sha256, cache, say)
    if sha256 is None:
        raise ModelwrightError(
            f"{source}: not pinned: give the sha256 of the file, so that nobody can exchange it"
        )
    name = unquote(PurePosixPath(urlsplit(source).path).name) or "file"
    return download(source, cache / sha256[:16] / name, sha256, say)


def download(address: str, target: Path, sha256: str | None, say: Say | None = None) -> Path:
    """Fetch a file over HTTP to ``target``, going on with a part that is there.

    Args:
        address: https:// or http://.
        target: the file to make; one that exists is taken as it is, since only checked files are
            given that name.
        sha256: of the file; None checks nothing but the length.
        say: takes a line about what is fetched.

    Raises:
        CorruptError: it is another file than ``sha256`` says.
        MachineError: it cannot be had.
    """
    if target.exists():
        return target
    if say is not None:
        say(f"fetching {address}")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _whole(address, part)
        _check(part, sha256, address)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        rename(part, target)
    except OSError as error:
        raise MachineError(
            f"{address}: cannot be kept in {target.parent} ({error.strerror or error}):"
            " make room, or name another folder"
        ) from error
    return target


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check(path: Path, sha256: str | None, address: str) -> None:
    if sha256 is None:
        return
    found = file_sha256(path)
    if found != sha256:
        path.unlink()
        raise CorruptError(
            f"{address}: sha256 is {found}, {sha256} is meant: the file there was exchanged or"
            " damaged; get it elsewhere, or correct sha256 if you trust the new one"
        )


def _whole(address: str, part: Path) -> None:
    """Fetch until the length that the server states is there."""
    why = ""
    for _ in range(TRIES):
        try:
            if _once(address, part):
                return
            why = "the connection ends before the file does"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and part.exists():  # the part is no part of this file
                part.unlink()
                why = "the file there has changed meanwhile"
                continue
            raise MachineError(
                f"{address}: the server says {error.code} {error.reason}: check the address"
            ) from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            why = str(getattr(error, "reason", "") or error or type(error).__name__)
    raise MachineError(
        f"{address}: cannot be fetched ({why}); what came is kept: start the same command again"
    )


def _once(address: str, part: Path) -> bool:
    """Fetch what is missing; whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "modelwright", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - checked by `local`
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        goes_on = answer.status == 206
        length = answer.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as stream:
            came = sum(stream.write(block) for block in _blocks(answer))
    return length is None or came == int(length)


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """What a connection gives until it ends, even if it ends too early."""
    while True:
        try:
            block = stream.read1(_BLOCK)  # type: ignore[attr-defined]
        except HTTPException:
            return
        if not block:
            return
        yield block


def _hub(source: str, sha256: str | None, cache: Path, say: Say | None) -> Path:
    match = _HUB.fullmatch(source)
    if match is None:
        raise ModelwrightError(f"{source}: hf://datasets/NAME@COMMIT/FILE is meant")
    if not _COMMIT.fullmatch(match["at"] or ""):
        raise ModelwrightError(
            f"{source}: not pinned: write the commit, 40 hexadecimal digits, after the name:"
            f" hf://datasets/{match['name']}@COMMIT/FILE; a branch or tag can be moved"
        )
    try:
        import huggingface_hub as hub  # noqa: PLC0415 - an extra, and slow to import
        from huggingface_hub.errors import (  # noqa: PLC0415
            HfHubHTTPError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise MachineError(
            f"{source}: needs huggingface_hub, which is not installed:"
            " pip install 'modelwright[data]'"
        ) from error
    folder = cache / "hf" / f"{match['name'].replace('/', '--')}@{match['at']}"
    path = match["path"] or "*"
    if say is not None:
        say(f"fetching {source}")
    common: dict[str, Any] = {
        "repo_id": match["name"],
        "repo_type": "dataset",
        "revision": match["at"],
        "local_dir": folder,
        "endpoint": os.environ.get("HF_ENDPOINT") or None,
    }
    try:
        if "*" in path or path.endswith("/"):
            patterns = path + "*" if path.endswith("/") else path
            return Path(hub.snapshot_download(allow_patterns=patterns, **common))
        found = Path(hub.hf_hub_download(filename=path, **common))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise MachineError(f"{source}: the hub does not give it ({line})") from error
    _check(found, sha256, source)
    return found


def _store(source: str, sha256: str | None, cache: Path, say: Say | None) -> Path:
    """A file of an S3-compatible store; the cache knows it by address, size and the store's tag."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra

        store, path = url_to_fs(source, use_listings_cache=False)
    except ImportError as error:
        raise MachineError(
            f"{source}: needs s3fs, which is not installed: pip install 'modelwright[s3]'"
        ) from error
    try:
        about = store.info(path)
        if about.get("type") != "file":
            raise ModelwrightError(f"{source}: names no single file: name one")
        mark = f"{source}\n{about.get('size')}\n{about.get('ETag') or about.get('LastModified')}"
        key = hashlib.sha256(mark.encode()).hexdigest()[:16]
        target = cache / "s3" / key / PurePosixPath(path).name
        if target.exists():
            _check(target, sha256, source)
            return target
        if say is not None:
            say(f"fetching {source}")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with store.open(path, "rb") as stream, part.open("wb") as kept:
            shutil.copyfileobj(stream, kept, _BLOCK)
            kept.flush()
            os.fsync(kept.fileno())
        if part.stat().st_size != about.get("size"):
            raise MachineError(f"{source}: came in part only: start the same command again")
        _check(part, sha256, source)
        rename(part, target)
    except ModelwrightError:
        raise
    except Exception as error:  # botocore's and aiohttp's errors share no class
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise MachineError(f"{source}: the store does not give it ({line})") from error
    return target
