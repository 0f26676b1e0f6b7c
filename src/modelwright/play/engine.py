"""Another chess program as a player, such as Stockfish: a process that is spoken to by UCI."""

from __future__ import annotations

import contextlib
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence

from modelwright.data.games import IllegalMove, Move
from modelwright.data.games.tree_search import Stand
from modelwright.errors import MachineError, ModelwrightError

SECONDS = 20.0  # a program that says nothing for so long has stopped


class Engine:
    """A program that plays chess.

    Args:
        command: the program and its arguments.
        depth: plies that it looks ahead.
        seconds: how long it may take for an answer.
        name: what it is called in a score.

    Raises:
        MachineError: it cannot be started, or does not answer as UCI asks.
    """

    def __init__(
        self, command: Sequence[str], depth: int = 1, seconds: float = SECONDS, name: str = ""
    ) -> None:
        self.command, self.depth, self.seconds = list(command), depth, seconds
        self.name = name or f"{command[0]}:{depth}"
        try:
            self.process = subprocess.Popen(  # noqa: S603 - what the user has named
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise MachineError(f"{command[0]}: cannot be started ({error.strerror})") from error
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._say("uci")
        self._wait("uciok")

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """Its move in each position.

        Raises:
            MachineError: it stopped, said nothing in time, or named no legal move.
        """
        if game != "chess":
            raise ModelwrightError(f"{self.name} plays chess, not {game}; choose another opponent")
        return [self._move(stand) for stand in stands]

    def _move(self, stand: Stand) -> Move:
        self._say(f"position fen {stand.state}")
        self._say(f"go depth {self.depth}")
        words = self._wait("bestmove").split()
        try:
            return stand.state.parse(words[1] if len(words) > 1 else "")
        except IllegalMove as error:
            self.close()
            raise MachineError(f"{self.name}: {error}; it plays by other rules") from error

    def close(self) -> None:
        """End the program."""
        with contextlib.suppress(OSError, ValueError):
            self._write("quit")
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _write(self, line: str) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def _say(self, line: str) -> None:
        try:
            self._write(line)
        except (OSError, ValueError) as error:
            self.close()
            raise MachineError(f"{self.name}: has stopped; start it by hand to see why") from error

    def _wait(self, word: str) -> str:
        """The first line that begins with a word; others are passed over."""
        until = time.monotonic() + self.seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                self.close()
                raise MachineError(
                    f"{self.name}: no {word!r} within {self.seconds:g} s; is it a program of UCI?"
                ) from None
            if line is None:
                self.close()
                raise MachineError(f"{self.name}: ended without {word!r}; is it a UCI program?")
            if line.split()[:1] == [word]:
                return line

    def _listen(self) -> None:
        """Hand on its lines, and None at the end."""
        if self.process.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                for raw in self.process.stdout:
                    self.lines.put(raw.decode("utf-8", "replace"))
        self.lines.put(None)


def stockfish(depth: int) -> Engine:
    """Stockfish where it is installed, looking some plies ahead.

    Raises:
        MachineError: it is not installed.
    """
    found = shutil.which("stockfish")
    if found is None:
        raise MachineError(
            "stockfish is not on the PATH; install it, such as apt install stockfish"
        )
    return Engine([found], depth, name=f"stockfish:{depth}")
