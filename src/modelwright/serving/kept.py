"""Requests kept on disk for later training: only where whoever serves asks for it, and masked.

A line is an answered conversation, ``{"id", "model", "messages": [...]}``, or a document that was
gone on with, ``{"id", "model", "text"}``: what ``data.source`` reads. Personal data and secrets are
replaced by marks (``data.pii``) before anything is written; no name of a key and no address of a
client is. Which requests are kept is drawn by chance.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Full, Queue
from typing import Any

from modelwright.data.pii.mask import USUAL, Finder, fixed
from modelwright.errors import ModelwrightError
from modelwright.files import make_folder
from modelwright.serving.metrics import Metrics
from modelwright.types import Turn

MOST = 1 << 30  # bytes of the folder: then no more is kept
WAITING = 256  # answers that wait to be masked; more are not kept

_log = logging.getLogger(__name__)


class Keeper:
    """Writes a share of what is answered, by a thread of its own: nobody waits for it.

    Args:
        folder: holds a file a day, readable by this user alone; made where it is absent.
        share: of the answers, 0 to 1.
        metrics: counts what is kept.
        most: bytes of the folder.

    Raises:
        ModelwrightError: the share is none, or the folder cannot be written.
    """

    def __init__(
        self, folder: Path, share: float, metrics: Metrics | None = None, most: int = MOST
    ) -> None:
        if not 0 < share <= 1:
            raise ModelwrightError(f"keep-share: {share:g} is not above 0 and at most 1")
        try:
            make_folder(folder)
            folder.chmod(0o700)
        except OSError as error:
            raise ModelwrightError(f"{folder}: requests cannot be kept here: {error}") from error
        self._folder, self._share, self._most = folder, share, most
        self.metrics = metrics or Metrics()
        self._finder = Finder(frozenset(USUAL))
        self._draw = random.Random(secrets.randbits(64))
        self._held = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
        self._queue: Queue[tuple[str, Sequence[Turn], str] | None] = Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, model: str, given: Sequence[Turn], answer: str) -> None:
        """Perhaps keep what was asked and answered; returns at once."""
        if self._held >= self._most or self._draw.random() >= self._share:
            return
        try:
            self._queue.put_nowait((model, given, answer))
        except Full:
            return

    def close(self) -> None:
        """Write what waits, then no more."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(self._row(*item))
            except Exception:  # whatever it is, the next one is kept
                _log.exception("a request could not be kept")

    def _row(self, model: str, given: Sequence[Turn], answer: str) -> dict[str, Any]:
        row: dict[str, Any] = {"id": secrets.token_hex(8), "model": model}
        if given[0].role == "document":
            return {**row, "text": self._masked(given[0].text + answer)}
        said = [(turn.role, turn.text) for turn in given]
        messages = [
            {"role": role, "content": self._masked(text)}
            for role, text in (*said, ("assistant", answer))
        ]
        return {**row, "messages": messages}

    def _masked(self, text: str) -> str:
        return self._finder.mask(text, fixed)[0]

    def _write(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        if self._held >= self._most:
            return
        if self._held + len(line) > self._most:
            self._held = self._most
            _log.warning("%s is full; no more requests are kept", self._folder)
            return
        path = self._folder / f"{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            written = os.write(descriptor, line)
            if written < len(line):  # the disk is full: half a row is none
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, "no space is left", str(path))
        finally:
            os.close(descriptor)
        self._held += len(line)
        self.metrics.add("requests_kept_total")
