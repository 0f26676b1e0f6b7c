"""A program kept alive beside this one, asked again and again, and killed when it hangs.

Libraries that read strangers' files can loop for ever, crash, or take all memory. They work in a
child with limits of its own; only the child is lost. It is started as a program of its own and
spoken to through pipes: nothing is forked, so it is safe beside threads.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelwright.errors import MachineError

START_SECONDS = 120.0
HUNG, DIED = "hung", "died"
_HEAD = struct.Struct("<I")


class Child:
    """A running program; started when first asked, and again after it was lost.

    One thread asks at a time.

    The program first writes one frame: empty when it is ready, else why it cannot work. It then
    answers every frame it reads by one frame, until its input ends. A frame is its length (32
    bits, little-endian) and its bytes. It ends itself by SIGPROF when a request takes too long.
    """

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        seconds: float,
        *,
        environment: Mapping[str, str] | None = None,
        largest: int = 1 << 32,
    ) -> None:
        """Take what is needed to start it.

        Args:
            program: a script.
            arguments: of it.
            seconds: the time for an answer by the clock: the last resort.
            environment: all that it has of one; left out, it is ours.
            largest: bytes of an answer; one that writes more is lost.
        """
        # -P: the program's folder holds modules named like the standard library's.
        self._command = [sys.executable, "-P", str(program), *arguments]
        self._seconds, self._environment, self._largest = seconds, environment, largest
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._stop: weakref.finalize[[subprocess.Popen[bytes], int], Child] | None = None
        self.answered = 0  # by the program that runs now

    def ask(self, request: bytes) -> tuple[bytes, str]:
        """(answer, "") or (b"", HUNG or DIED); after either the next call starts a new program.

        Raises:
            MachineError: the program cannot be started.
        """
        process = self._process if self._owner == os.getpid() else None
        process = process or self._start()
        try:
            whole = _HEAD.pack(len(request)) + request
            answer = _exchange(process, whole, self._seconds, self._largest)
        except TimeoutError:
            self.stop()
            return b"", HUNG
        if answer is None:
            self.stop()
            slow = process.returncode in (-signal.SIGPROF, -signal.SIGXCPU)
            return b"", HUNG if slow else DIED
        self.answered += 1
        return answer, ""

    def stop(self) -> None:
        """End the program, if one runs."""
        if self._stop is not None:
            self._stop()
        self._process, self.answered = None, 0

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - this Python, our own program
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=None if self._environment is None else dict(self._environment),
        )
        self._process, self._owner, self.answered = process, os.getpid(), 0
        self._stop = weakref.finalize(self, _end, process, self._owner)
        try:
            ready = _exchange(process, b"", START_SECONDS, self._largest)
        except TimeoutError:
            ready = b"it did not answer"
        if ready != b"":
            self.stop()
            why = ready.decode("utf-8", "replace") if ready else f"it ended: {process.returncode}"
            raise MachineError(f"{Path(self._command[2]).name}: cannot start: {why}")
        return process


def _exchange(
    process: subprocess.Popen[bytes], request: bytes, seconds: float, largest: int
) -> bytes | None:
    """Write a request and read a frame; TimeoutError if too slow.

    None when the program ended, or writes more than ``largest`` bytes.
    """
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes
    inward, outward = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(inward, False)
    poll, until = select.poll(), time.monotonic() + seconds
    poll.register(outward, select.POLLIN)
    rest = memoryview(request)
    if rest:
        poll.register(inward, select.POLLOUT)
    got = bytearray()
    while len(got) < 4 or len(got) < 4 + _HEAD.unpack_from(got)[0]:
        ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        for descriptor, events in ready:
            if descriptor == outward:
                part = os.read(outward, 1 << 20)
                if not part:
                    return None
                got += part
                if len(got) >= 4 and _HEAD.unpack_from(got)[0] > largest:
                    return None
            elif events & (select.POLLERR | select.POLLHUP):
                poll.unregister(inward)  # it is gone: the other pipe says so
            else:
                try:
                    rest = rest[os.write(inward, rest) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    rest = rest[:0]
                if not rest:
                    poll.unregister(inward)
    return bytes(got[4:])


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that started it has no right to end it
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:  # one that waits for work ends by itself now; one that hangs does not
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
