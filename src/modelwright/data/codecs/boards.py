"""Positions of a board game: planes of bits, the legal moves by number, what was played, who won.

A position is stored as its rules' ``Encoding`` sees it: a byte a row of each plane, so that one of
chess takes 144 bytes and is unpacked for a whole batch at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modelwright.data import games
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Label,
    Number,
    Position,
    Ragged,
    Turn,
    ragged_column,
)

BEST = 3  # moves that an answer names
_NAME_BYTES = 16


class Codec:
    """The game, found in the train part; nothing else is fitted.

    ``shape`` is (rows, columns, planes); a model gives rows * columns * ``kinds`` + ``others``
    logits and a value: ``models/board.py``.
    """

    ragged: tuple[str, ...] = ("legal", "played", "shares")
    views: ClassVar[tuple[str, tuple[str, ...]]] = ("planes", ("board",))

    def __init__(self, game: str) -> None:
        self.game = game
        self.seen_as = games.encoding(game)
        self.shape = (self.seen_as.rows, self.seen_as.columns, self.seen_as.planes)
        self.kinds, self.others = self.seen_as.kinds, self.seen_as.others
        self.moves = self.shape[0] * self.shape[1] * self.kinds + self.others

    @classmethod
    def fit(cls, examples: Iterable[Example]) -> Codec:
        """Learn which game it is.

        Raises:
            ModelwrightError: the positions are of several games.
        """
        found = {_position(example).game for example in examples}
        if len(found) != 1:
            raise ModelwrightError(
                f"codec boards: positions of {', '.join(sorted(found)) or 'no game'}; a model"
                " learns one game, name it as the task's option game"
            )
        return cls(found.pop())

    def encode(self, example: Example) -> Encoded:
        """One position, and what is to be learned of it.

        ``planes`` (P, R) uint8, a byte a row; ``legal`` (L,) int16, the numbers of the legal moves;
        ``played`` (M,) int16 and ``shares`` (M,) float32, the moves to be learned and the share of
        each, none of a question; ``value`` () float32, the result for the player to move, NaN where
        it is not known; ``turn`` and ``clock`` (); ``game`` (), its name.

        Raises:
            ModelwrightError: the position is of another game, is over, or a move is not legal.
        """
        position = _position(example)
        if position.game != self.game:
            raise ModelwrightError(
                f"codec boards: a position of {position.game}, the model plays {self.game}"
            )
        legal = games.legal_numbers(self.game, position.state)
        turn = next((t for t in example.turns if t.learn), None)
        if turn is None:
            return self.stored(position, legal, {}, float("nan"))
        numbers = turn.numbers
        played = [self._number(position.state, legal, name) for name in turn.labels]
        shares = dict(zip(played, numbers[1:] or (1.0,) * len(played), strict=True))
        return self.stored(position, legal, shares, numbers[0] if numbers else float("nan"))

    def stored(
        self, position: Position, legal: Sequence[int], played: Mapping[int, float], value: float
    ) -> Encoded:
        """A position, its legal moves and the shares of moves by number, as columns: ``encode``."""
        state, seen = position.state, self.seen_as
        if not legal:
            raise ModelwrightError(f"codec boards: the game is over in {state}")
        planes = np.frombuffer(seen.seen(state, position.touched), dtype=np.uint8)
        return self.row(
            planes.reshape(self.shape[2], self.shape[0]),
            legal=np.array(legal, dtype=np.int16),
            played=np.array(list(played), dtype=np.int16),
            shares=np.array(list(played.values()), dtype=np.float32),
            value=value,
            turn=state.turn,
            clock=seen.clock(state),
        )

    def row(
        self,
        planes: Array,
        *,
        legal: Array,
        played: Array,
        shares: Array,
        value: float,
        turn: int,
        clock: int,
    ) -> Encoded:
        """The columns of ``encode`` from their arrays."""
        return {
            "planes": planes,
            "legal": legal,
            "played": played,
            "shares": shares,
            "value": np.array(value, dtype=np.float32),
            "turn": np.array(turn, dtype=np.uint8),
            "clock": np.array(clock, dtype=np.int16),
            "game": np.array(self.game.encode(), dtype=f"S{_NAME_BYTES}"),
        }

    def _number(self, state: games.State, legal: Sequence[int], name: str) -> int:
        """The number of a legal move by its text."""
        text, turn = self.seen_as.text, state.turn
        for number in legal:
            if text(turn, number) == name:
                return number
        return self.seen_as.number(state, state.parse(name))

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        turn, clock = int(encoded["turn"]), int(encoded["clock"])
        state, touched = self.seen_as.restored(np.asarray(encoded["planes"]).tobytes(), turn, clock)
        given = Turn("user", (Position(self.game, state, touched),))
        played, value = np.asarray(encoded["played"]).tolist(), float(encoded["value"])
        if not played:
            return Example((given,))
        shares = np.asarray(encoded["shares"]).tolist()
        return Example((given, self._turn(turn, played, value, shares if len(played) > 1 else ())))

    def _turn(
        self, player: int, numbers: Iterable[int], value: float, shares: Iterable[float] = ()
    ) -> Turn:
        labels = (Label(self.seen_as.text(player, number)) for number in numbers)
        return Turn("assistant", (*labels, Number(value), *map(Number, shares)), learn=True)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """A batch of positions, L being the most legal moves of one.

        ``features`` (B, R, C, P) float32; ``legal`` (B, L) int64, -1 beyond a row's moves;
        ``policy`` (B, L) float32, the shares of these moves, of a question 0; ``value`` (B,)
        float32; ``turn`` (B,) int64.
        """
        legal, policy = padded(columns)
        return {
            "features": torch.from_numpy(unpacked(np.asarray(columns["planes"]), self.shape[1])),
            "legal": torch.from_numpy(legal),
            "policy": torch.from_numpy(policy),
            "value": torch.from_numpy(np.array(columns["value"], dtype=np.float32)),
            "turn": torch.from_numpy(np.array(columns["turn"], dtype=np.int64)),
        }

    def decode(self, outputs: Tensor) -> list[Turn]:
        """The three likeliest moves and the value, of outputs (B, moves + 2).

        Those are the logarithms of probabilities (-inf: not legal), the value, and the player to
        move, as ``objectives/policy_value.py`` predicts them.
        """
        best = outputs[:, : self.moves].topk(min(BEST, self.moves), dim=1)
        rows = zip(
            best.indices.tolist(), best.values.tolist(), outputs[:, -2:].tolist(), strict=True
        )
        found = []
        for numbers, chances, (value, player) in rows:
            legal = [n for n, chance in zip(numbers, chances, strict=True) if chance > -np.inf]
            turn = self._turn(int(player), legal, value)
            found.append(Turn(turn.role, turn.parts))
        return found

    def details(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Of each answer the probabilities of its moves, and the value, -1 lost to 1 won."""
        best = outputs[:, : self.moves].topk(min(BEST, self.moves), dim=1)
        rows = zip(
            best.indices.tolist(), best.values.exp().tolist(), outputs[:, -2:].tolist(), strict=True
        )
        return [
            {
                "probabilities": {
                    self.seen_as.text(int(player), n): p
                    for n, p in zip(numbers, chances, strict=True)
                    if p > 0
                },
                "value": value,
            }
            for numbers, chances, (value, player) in rows
        ]

    def save(self) -> dict[str, bytes]:
        """``boards.json``."""
        return {"boards.json": json.dumps({"game": self.game}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        return cls(json.loads(files["boards.json"])["game"])


def _position(example: Example) -> Position:
    found = [p for turn in example.turns for p in turn.positions]
    if len(found) != 1:
        raise ModelwrightError(
            f"codec boards: an example has {len(found)} positions, exactly one is meant"
        )
    return found[0]


def unpacked(planes: Array, columns: int) -> Array:
    """Stored planes (B, P, R) as numbers 0 and 1, float32 (B, R, columns, P)."""
    bits = np.unpackbits(planes[..., None], axis=-1, bitorder="little", count=columns)
    return bits.transpose(0, 2, 3, 1).astype(np.float32, order="C")


def padded(columns: Columns) -> tuple[Array, Array]:
    """``legal`` (B, L) int64, -1 where a row has fewer, and the share of each (B, L) float32."""
    legal, played = ragged_column(columns, "legal"), ragged_column(columns, "played")
    numbers, inside = _rectangle(legal)
    policy = np.zeros(numbers.shape, dtype=np.float32)
    if len(played.values):
        rows = np.repeat(np.arange(len(played)), played.lengths)
        same = numbers[rows] == np.asarray(played.values)[:, None]
        if not (same & inside[rows]).any(axis=1).all():
            raise ModelwrightError("codec boards: a move to be learned is not among the legal ones")
        policy[rows, same.argmax(axis=1)] = np.asarray(ragged_column(columns, "shares").values)
    return numbers, policy


def _rectangle(column: Ragged) -> tuple[Array, Array]:
    """Rows of numbers side by side, -1 behind the shorter ones; and which are numbers."""
    lengths = column.lengths
    inside = np.arange(lengths.max(initial=1)) < lengths[:, None]
    numbers = np.full(inside.shape, -1, dtype=np.int64)
    numbers[inside] = np.asarray(column.values)
    return numbers, inside
