"""What greed would play: the move after which most stands on one's own side of the board."""

from __future__ import annotations

from modelwright.data.games import Move, State, encoding

_END = 1e6  # what winning is worth beside material


def gains(game: str, state: State) -> list[tuple[float, Move]]:
    """For each legal move what stands on the board after it, seen by the mover.

    A won game counts for more than everything, a lost one for less; in between counts
    ``Encoding.worth``.
    """
    worth, mine = encoding(game).worth, -1.0 if state.turn else 1.0
    found = []
    for move in state.legal_moves():
        after = state.play(move)
        value = worth(after)
        if not after.legal_moves():  # no more moves: an end
            value += _END * (after.result() or 0.0)
        found.append((mine * value, move))
    return found


def by_greed(game: str, state: State) -> list[Move]:
    """The legal moves, the one that gains most first; equals in the rules' order."""
    found = sorted(gains(game, state), key=lambda of: of[0], reverse=True)
    return [move for _, move in found]
