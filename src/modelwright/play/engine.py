"""Another chess program as a player, such as Stockfish: a process that is spoken to by UCI."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from modelwright.data.games import IllegalMove, Move, begin
from modelwright.data.games.tree_search import Stand
from modelwright.errors import MachineError, ModelwrightError
from modelwright.play.players import Fault
from modelwright.play.programs import Program, located
from modelwright.play.thinking import squares

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
        self.program: Program | None = None
        self._begin()

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """Its move in each position. After a fault it is started again.

        Raises:
            Fault: it stopped, said nothing in time, or named no legal move; it is ended then.
        """
        if game != "chess":
            raise ModelwrightError(f"{self.name} plays chess, not {game}; choose another opponent")
        moves: list[Move] = []
        for stand in stands:
            try:
                moves.append(self._move(self.program or self._begin(), stand))
            except MachineError as error:
                self.close()
                raise Fault(str(error), moves) from error
        return moves

    def _begin(self) -> Program:
        self.program = Program(self.command, self.name, self.seconds)
        try:
            self.program.say("uci")
            self.program.wait("uciok")
        except MachineError:
            self.close()
            raise
        return self.program

    def _move(self, program: Program, stand: Stand) -> Move:
        program.say(told(stand))
        program.say(f"go depth {self.depth}")
        words = program.wait("bestmove").split()
        try:
            return stand.state.parse(words[1] if len(words) > 1 else "")
        except IllegalMove as error:
            raise MachineError(f"{self.name}: {error}; it plays by other rules") from error

    def close(self) -> None:
        """End the program."""
        if self.program is not None:
            self.program.close()
        self.program = None


def told(stand: Stand) -> str:
    """A position with all moves that led to it, so that its repetitions are seen."""
    first = stand.past[0][0] if stand.past else stand.state
    start = "startpos" if first == begin("chess") else f"fen {first}"
    moves = " ".join(squares(move) for _, move in stand.past)
    return f"position {start} moves {moves}" if moves else f"position {start}"


def stockfish(depth: int) -> Engine:
    """Stockfish where it is installed, looking some plies ahead.

    Raises:
        MachineError: it is not installed.
    """
    found = located("stockfish")
    if found is None:
        raise MachineError(
            "stockfish is not on the PATH; install it, such as apt install stockfish"
        )
    return Engine([found], depth, name=f"stockfish:{depth}")


def named(text: str) -> Engine:
    """The program of a command such as ``gnuchess --uci@3``; the number is its depth, else 1.

    Raises:
        ModelwrightError: it is no command.
        MachineError: there is no such program, or it does not answer as UCI asks.
    """
    match = re.fullmatch(r"(.*?)(?:@(\d{1,3}))?", text.strip(), re.DOTALL)
    try:
        words = shlex.split(match[1]) if match else []
    except ValueError as error:
        raise ModelwrightError(f"uci:{text[:60]}: {error}; a command is meant") from error
    depth = int(match[2] or 1) if match else 1
    if not words or depth < 1:
        raise ModelwrightError("uci: a command is meant, such as 'uci:gnuchess --uci@3'")
    found = located(words[0])
    if found is None:
        raise MachineError(
            f"uci: {words[0]}: no such program on the PATH; give its path, or install it"
        )
    name = " ".join([Path(words[0]).name, *words[1:]])
    return Engine([found, *words[1:]], depth, name=f"{name}@{depth}")
