"""The rules of board games, one a file, found by module name; each has a class ``State``."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from modelwright.data.games.state import Encoding, IllegalMove, Move, State
from modelwright.errors import ModelwrightError, did_you_mean

__all__ = [
    "Encoding",
    "IllegalMove",
    "Move",
    "State",
    "begin",
    "encoding",
    "legal_numbers",
    "names",
    "numbered",
    "perft",
    "replay",
]


def names() -> list[str]:
    """The games whose rules are known: the modules of this room but those that help one."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name != "state" and "_" not in name)


def _known(game: str) -> None:
    if game not in names():
        raise ModelwrightError(
            f"no game {game!r}{did_you_mean(game, names())}; known: {', '.join(names())}"
        )


@functools.cache
def encoding(game: str) -> Encoding:
    """How a network sees a game.

    Raises:
        ModelwrightError: there is no such game.
    """
    _known(game)
    found: Encoding = importlib.import_module(f"{__name__}.{game}_encoding").ENCODING
    return found


def legal_numbers(game: str, state: State) -> list[int]:
    """The numbers of the legal moves, each once, in the moves' order."""
    number = encoding(game).number
    return list(dict.fromkeys(number(state, move) for move in state.legal_moves()))


def numbered(game: str, state: State, number: int) -> Move:
    """The legal move of a number, the first one where two share it.

    Raises:
        IllegalMove: no legal move has it.
    """
    of = encoding(game).number
    for move in state.legal_moves():
        if of(state, move) == number:
            return move
    raise IllegalMove(f"{game}: move number {number} is not legal in {state}")


def begin(game: str, position: str = "") -> State:
    """The first state of a game, or the one that ``position`` describes in its own notation.

    Raises:
        ModelwrightError: there is no such game, or the position cannot be read.
    """
    _known(game)
    kind = importlib.import_module(f"{__name__}.{game}").State
    state: State = kind.of(position) if position else kind.start()
    return state


def replay(state: State, moves: Iterable[str]) -> Iterator[tuple[State, Move]]:
    """Each state with the move that was played in it, passes that were not written included.

    Records of Othello leave out a pass, since it is forced; it is put back here. The state after
    the last move is ``state.play(move)`` of the last pair.

    Raises:
        IllegalMove: a move the rules do not allow; the message begins with its number, from 1.
    """
    for number, text in enumerate(moves, 1):
        try:
            move = state.parse(text)
        except IllegalMove as error:
            if state.legal_moves() != [()]:
                raise IllegalMove(f"move {number}: {error}") from None
            yield state, ()
            state = state.play(())
            try:
                move = state.parse(text)
            except IllegalMove as again:
                raise IllegalMove(f"move {number}: {again}") from None
        yield state, move
        state = state.play(move)


def perft(state: State, depth: int) -> int:
    """How many games of ``depth`` moves begin here: the customary proof of a move generator."""
    moves = state.legal_moves()
    if depth <= 1:
        return len(moves) if depth else 1
    return sum(perft(state.play(move), depth - 1) for move in moves)
