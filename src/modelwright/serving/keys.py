"""Who may ask: keys as their SHA-256 in a file that is read again when it changes, and rates.

A line of the file: a name, the SHA-256 of the key in hex, and optionally the requests and the
tokens that it may have a minute (0: no limit). What stands behind # is a comment. The keys must be
drawn at random, as ``new_key`` does: then a plain hash tells nobody what they are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.serving.limits import Limits

CHECK_SECONDS = 1.0  # between two looks at the file
WINDOW = 60  # seconds over which a rate is counted


class Rate:
    """How much was taken in the last minute, second by second."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: deque[list[float]] = deque()  # [second, amount], at most WINDOW of them

    def wait(self, now: float) -> int:
        """Seconds until something may be taken again; 0: now."""
        while self._taken and self._taken[0][0] <= now - WINDOW:
            self._taken.popleft()
        over = sum(amount for _, amount in self._taken) - self.most
        if not self.most or over < 0:
            return 0
        for second, amount in self._taken:
            over -= amount
            if over < 0:
                return max(1, int(second + WINDOW - now) + 1)
        return WINDOW

    def take(self, now: float, amount: float = 1) -> None:
        """Note that something was taken."""
        if self._taken and self._taken[-1][0] == int(now):
            self._taken[-1][1] += amount
        else:
            self._taken.append([int(now), amount])


@dataclass
class Client:
    """Who asks: the name of a key, and what it has taken."""

    name: str
    digest: bytes
    requests: Rate
    tokens: Rate
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admitted(self, now: float) -> int:
        """Count a request; or the seconds to wait before it may come, and nothing is counted."""
        with self._lock:
            wait = max(self.requests.wait(now), self.tokens.wait(now))
            if not wait:
                self.requests.take(now)
            return wait

    def spend(self, now: float, tokens: int) -> None:
        """Count tokens, known when an answer ends: what is too much delays the next request."""
        with self._lock:
            self.tokens.take(now, tokens)


class Keys:
    """The keys of a file, or one given; ``client`` finds whose a key is.

    Raises:
        ModelwrightError: the file cannot be read or a line of it is wrong. Once the server runs, a
            file that has become wrong is left aside and the keys before it stay.
    """

    def __init__(
        self,
        path: Path | None = None,
        key: str | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._limits, self.clock = path, limits or Limits(), clock
        self._given = [] if key is None else [self._made("key", _digest(key.encode()))]
        self._known: list[Client] = []
        self._stamp: tuple[int, int] | None = None
        self._looked = clock()
        if path is not None:
            self._read(path)

    def __bool__(self) -> bool:
        return bool(self._given or self._path is not None)

    def client(self, key: bytes) -> Client | None:
        """Whose a key is, if anybody's: every hash is compared, in the same time."""
        self._refresh()
        digest, found = _digest(key), None
        for client in (*self._given, *self._known):
            if hmac.compare_digest(client.digest, digest):
                found = client
        return found

    def _refresh(self) -> None:
        now = self.clock()
        if self._path is None or now - self._looked < CHECK_SECONDS:
            return
        self._looked = now
        try:
            if self._stamped(self._path) != self._stamp:
                self._read(self._path)
        except (OSError, ModelwrightError):
            return  # half-written or gone: what was allowed stays so until it is whole

    @staticmethod
    def _stamped(path: Path) -> tuple[int, int]:
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino

    def _read(self, path: Path) -> None:
        try:
            stamp, text = self._stamped(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ModelwrightError(f"{path}: the keys cannot be read") from error
        before = {client.digest: client for client in self._known}
        known: list[Client] = []
        for number, line in enumerate(text.splitlines(), 1):
            if words := line.partition("#")[0].split():
                made = self._line(words, f"{path}:{number}")
                kept = before.get(made.digest)
                if kept is not None:  # what it has taken already counts on
                    kept.name, kept.requests.most = made.name, made.requests.most
                    kept.tokens.most = made.tokens.most
                known.append(kept or made)
        if len({client.name for client in known}) != len(known):
            raise ModelwrightError(f"{path}: two keys have one name; give each its own")
        self._known, self._stamp = known, stamp

    def check_line(self, words: list[str], where: str) -> None:
        """Refuse a line that cannot be added.

        Raises:
            ModelwrightError: it is wrong, or its name is taken.
        """
        made = self._line(words, where)
        if made.name in {client.name for client in self._known}:
            raise ModelwrightError(f"{where}: there is a key named {made.name} already")

    def _line(self, words: list[str], where: str) -> Client:
        if not (2 <= len(words) <= 4 and re.fullmatch(r"[0-9a-f]{64}", words[1])):
            raise ModelwrightError(
                f"{where}: a line is a name, the SHA-256 of a key in hex, and optionally the "
                "requests and tokens it may have a minute"
            )
        plain = all(re.fullmatch(r"[0-9]{1,15}", word) for word in words[2:])
        if not (re.fullmatch(r"[\w.-]{1,64}", words[0]) and plain):
            raise ModelwrightError(f"{where}: the name or a number is wrong")
        return self._made(words[0], bytes.fromhex(words[1]), *map(int, words[2:]))

    def _made(
        self, name: str, digest: bytes, requests: int | None = None, tokens: int | None = None
    ) -> Client:
        a = self._limits.requests_a_minute if requests is None else requests
        b = self._limits.tokens_a_minute if tokens is None else tokens
        return Client(name, digest, Rate(a), Rate(b))


def new_key(name: str) -> tuple[str, str]:
    """(a new key, the line for the file of keys)."""
    key = f"mw-{secrets.token_urlsafe(32)}"
    return key, f"{name} {_digest(key.encode()).hex()}"


def add_key(path: Path, name: str, requests: int = 0, tokens: int = 0) -> str:
    """A new key, whose hash is added to a file of keys; made where it is absent.

    Raises:
        ModelwrightError: the file is damaged, has the name already, or the name is none.
    """
    keys = Keys(path) if path.exists() else Keys()
    key, line = new_key(name)
    keys.check_line([*line.split(), str(requests), str(tokens)], f"{path}: new line")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    replace_file(path, f"{before}{line} {requests} {tokens}\n".encode())
    path.chmod(0o600)
    return key


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
