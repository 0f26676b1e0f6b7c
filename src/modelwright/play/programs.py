"""Other programs, spoken to line by line; of what they say a few lines are held, each cut.

A program that writes without end, or without an end of line, costs no memory: what of a line lies
beyond its limit is passed over, and where nobody reads the program waits in its pipe.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from modelwright.errors import MachineError

GAMES = ("/usr/games", "/usr/local/games")  # where Debian keeps games; not on the PATH of root
LONGEST = 1 << 16  # bytes of a line that are read
QUEUED = 64  # lines that wait to be read
ENDING = 5.0  # seconds that a killed program's pipe is waited for


def located(name: str) -> str | None:
    """The path of a program on the PATH or in the folders of games; None: it is in neither."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(GAMES))


def lines_of(stream: IO[bytes], longest: int = LONGEST) -> Iterator[bytes]:
    """The lines of a stream, each without what lies beyond its first ``longest`` bytes."""
    while line := stream.readline(longest):
        yield line
        while line and not line.endswith(b"\n"):
            line = stream.readline(longest)


class Program:
    """A process that reads lines and answers by lines.

    Args:
        command: the program and its arguments.
        name: what it is called in errors.
        seconds: how long it may take for an answer.

    Raises:
        MachineError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        try:
            self.process = subprocess.Popen(  # noqa: S603 - what the user has named
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that what a script has started ends with it
            )
        except OSError as error:
            raise MachineError(f"{command[0]}: cannot be started ({error.strerror})") from error
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUED)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def say(self, line: str) -> None:
        """Write a line to it.

        Raises:
            MachineError: it has stopped.
        """
        try:
            self._write(line)
        except (OSError, ValueError) as error:
            raise MachineError(f"{self.name}: has stopped; start it by hand to see why") from error

    def wait(self, word: str) -> str:
        """The first line that begins with a word; others are passed over.

        Raises:
            MachineError: it said no such thing in time, or ended.
        """
        until = time.monotonic() + self.seconds
        late = f"{self.name}: no {word!r} within {self.seconds:g} s; is it a program of UCI?"
        while (left := until - time.monotonic()) > 0:  # also of one that never stops talking
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise MachineError(f"{self.name}: ended without {word!r}; is it a UCI program?")
            text = line.decode("utf-8", "replace")
            if text.split(maxsplit=1)[:1] == [word]:
                return text
        raise MachineError(late)

    def close(self, last: str = "quit") -> None:
        """End it and whatever it has started."""
        with contextlib.suppress(OSError, ValueError):
            self._write(last)
        if self.process.returncode is None:  # not waited for yet: the number is still its own
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        until = time.monotonic() + ENDING
        while self._listener.is_alive() and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):  # the listener may wait for room
                self._lines.get(timeout=0.05)
        pipes = [self.process.stdin, *([] if self._listener.is_alive() else [self.process.stdout])]
        for pipe in pipes:
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _write(self, line: str) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def _listen(self) -> None:
        """Hand on its lines, and None at the end."""
        if self.process.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                for raw in lines_of(self.process.stdout):
                    self._lines.put(raw)
        self._lines.put(None)
