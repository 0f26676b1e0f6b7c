"""Games of a network with itself, rules and search in one; see ``playing.cpp``.

For Connect Four and Othello. Where it cannot run, ``play/self_play.py`` plays the same way in
Python, with other draws of chance.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelwright.kernels.build import library

GAMES = ("connect4", "othello")  # in the order of the kernel's numbers
_SHAPES = {"connect4": (6, 7, 3), "othello": (8, 8, 4)}  # rows, columns, planes


class Taken(NamedTuple):
    """The positions of all games, game after game.

    Attributes:
        planes: uint8 (N, P, R), a byte a row of each plane.
        legal: int16 (total,), the legal moves by number.
        shares: float32 (total,), the share of each in the policy that the search came to.
        offsets: int64 (N + 1,), where the moves of each position begin.
        values: float32 (N,), the game's result for the player to move.
        turns: uint8 (N,), the player to move.
        results: int8 (games,), 1, 0 or -1 for who began.
    """

    planes: NDArray[np.uint8]
    legal: NDArray[np.int16]
    shares: NDArray[np.float32]
    offsets: NDArray[np.int64]
    values: NDArray[np.float32]
    turns: NDArray[np.uint8]
    results: NDArray[np.int8]


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    kernel = library("playing", ())
    if kernel is not None:
        kernel.begin.restype = ctypes.c_void_p
        kernel.step.restype = ctypes.c_long
    return kernel


def native(game: str) -> bool:
    """Whether the kernel can run here and knows the game."""
    return game in GAMES and _kernel() is not None


class Playing:
    """Games on their way.

    Args:
        game: one of ``GAMES``.
        games: how many.
        at_once: side by side.
        simulations: visits of the search for each move.
        considered: moves that are tried at the root, at most.
        opening: plies of chance at the start of a game, at most.
        seed: of all draws.

    Raises:
        MemoryError: there is no memory for it.
    """

    def __init__(
        self,
        game: str,
        *,
        games: int,
        at_once: int,
        simulations: int,
        considered: int,
        opening: int,
        seed: int,
    ) -> None:
        kernel = _kernel()
        assert kernel is not None  # noqa: S101 - asked before, by ``native``
        self._kernel, self.shape, self.games = kernel, _SHAPES[game], games
        numbers = (games, at_once)
        sizes = (simulations, considered, opening)
        self._players: Any = kernel.begin(
            ctypes.c_int(GAMES.index(game)),
            *map(ctypes.c_long, numbers),
            *map(ctypes.c_int, sizes),
            ctypes.c_uint64(seed),
        )
        if not self._players:
            raise MemoryError("playing: not enough memory for the games")
        self._features = np.zeros((min(games, at_once), *self.shape), np.float32)

    def step(self, outputs: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """The leaves to be judged next.

        Args:
            outputs: of the last leaves, float32 (n, moves + 1): logits of all moves and the value
                for the mover; None at the first call.

        Returns:
            Their planes, float32 (n, rows, columns, planes), to be read before the next call; none
            once all games are over.

        Raises:
            MemoryError: there is no memory for further positions.
        """
        given = None if outputs is None else np.ascontiguousarray(outputs, np.float32)
        count = self._kernel.step(
            ctypes.c_void_p(self._players),
            ctypes.c_void_p(None if given is None else given.ctypes.data),
            ctypes.c_void_p(self._features.ctypes.data),
        )
        if count < 0:
            raise MemoryError("playing: not enough memory for the games")
        return self._features[:count]

    def taken(self) -> Taken:
        """What is to be learned, once all games are over."""
        sizes = (ctypes.c_long * 2)()
        self._kernel.sizes(ctypes.c_void_p(self._players), sizes)
        rows, moves = sizes
        found = Taken(
            np.empty((rows, self.shape[2], self.shape[0]), np.uint8),
            np.empty(moves, np.int16),
            np.empty(moves, np.float32),
            np.empty(rows + 1, np.int64),
            np.empty(rows, np.float32),
            np.empty(rows, np.uint8),
            np.empty(self.games, np.int8),
        )
        places = (ctypes.c_void_p(array.ctypes.data) for array in found)
        self._kernel.take(ctypes.c_void_p(self._players), *places)
        return found

    def __enter__(self) -> Playing:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the memory back."""
        self._kernel.finish(ctypes.c_void_p(self._players))
        self._players = None
