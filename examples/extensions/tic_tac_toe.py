"""A task that plays: positions come from games played here, and a policy is judged by its games.

The rows are made by play, none is recorded: one side moves at random, the other as a perfect player
would, whose moves are what is learned.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Constant, Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Image, Label, Policy, Row, Turn

GAMES = 400  # that the rows come from
PLAYED = 50  # games of a policy against one who moves at random
CELLS = np.arange(9).reshape(3, 3)
LINES = [*CELLS, *CELLS.T, CELLS.diagonal(), CELLS[::-1].diagonal()]
VIEWS = [np.rot90(side, turns).ravel() for turns in range(4) for side in (CELLS, CELLS.T)]


def rows(seed: int) -> Iterator[Row]:
    """Every position of some games once, with the perfect player's move.

    A ``group`` holds the eight views of a position, so none of them is in two parts.
    """
    rng = np.random.default_rng(seed)
    seen = set()
    for game in range(GAMES):
        board = "." * 9
        while not over(board):
            best = best_moves(board)
            if board not in seen:
                seen.add(board)
                views = ("".join(board[i] for i in view) for view in VIEWS)
                yield {"id": board, "group": min(views), "board": board, "move": str(best[0])}
            perfect = board.count(".") % 2 == game % 2
            board = played(board, int(rng.choice(best if perfect else moves(board))))


class TicTacToe(Task):
    """Rows with a ``board`` of nine X, O and dots, X beginning, and a good ``move``, 0 to 8."""

    codec = "vectors"
    objective = "classification"
    model = "mlp"
    measure = "perfect moves"
    specimen: ClassVar[Row] = {"id": "a", "board": "X.O.X....", "move": "8"}

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the board is given, the move is to be learned."""
        for name in ("board", "move"):
            if name not in row:
                raise missing_column(row, name, "is read", name)
        answer = Turn("assistant", (Label(str(row["move"])),), learn=True)
        return iter([Example((*self.question(str(row["board"])), answer))])

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a board: its cells as 1 (to move), -1 (the other) and 0 (free)."""
        text = text.strip().upper()
        if len(text) != 9 or set(text) - set("XO."):
            raise ModelwrightError(f"board {text[:20]!r}: nine of X, O and . are meant")
        mine = mover(text)
        cells = [0.0 if cell == "." else 1.0 if cell == mine else -1.0 for cell in text]
        return (Turn("user", (Image(np.array(cells, dtype=np.float32).reshape(3, 3)),)),)

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the move that was learned or another that gives nothing away, else 0."""
        if answer.label == example.answer.label:
            return 1.0
        (image,) = (part for part in example.given[0].parts if isinstance(part, Image))
        board = _board(image.pixels.ravel().round().astype(int).tolist())
        return float(answer.label in map(str, best_moves(board)))

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """Perfect moves in held-out positions, and games not lost against random moves."""
        rng = np.random.default_rng(0)
        points = [self._game(policy, number % 2 == 0, rng) for number in range(PLAYED)]
        kept = Measured("games not lost", sum(p >= 0 for p in points) / PLAYED)
        return [*super().measures(examples, policy), kept]

    def baselines(self, train: Sequence[Example]) -> dict[str, Policy]:  # noqa: ARG002
        """The corner, and then the first free cell: what is illegal is moved there."""
        return {"first free cell": Constant(Turn("assistant", (Label("0"),)))}

    def _game(self, policy: Policy, begins: bool, rng: np.random.Generator) -> int:
        """1 for a game that the policy wins, 0 for a draw, -1 for a loss."""
        board, turn = "." * 9, begins
        while not over(board):
            free = moves(board)
            said = int(policy.answer([self.question(board)])[0].label) if turn else -1
            legal = said if said in free else free[0]
            board = played(board, legal if turn else int(rng.choice(free)))
            turn = not turn
        return 0 if winner(board) is None else (-1 if turn else 1)


def moves(board: str) -> list[int]:
    """The free cells."""
    return [i for i, cell in enumerate(board) if cell == "."]


def mover(board: str) -> str:
    """Whose turn it is; X begins."""
    return "X" if board.count("X") == board.count("O") else "O"


def played(board: str, move: int) -> str:
    """The board after a move."""
    return board[:move] + mover(board) + board[move + 1 :]


def winner(board: str) -> str | None:
    """Who has three in a line."""
    rows_of = ({board[i] for i in line} for line in LINES)
    return next((cells.pop() for cells in rows_of if cells in ({"X"}, {"O"})), None)


def over(board: str) -> bool:
    """Whether the game has ended."""
    return winner(board) is not None or "." not in board


@functools.cache
def value(board: str) -> int:
    """1, 0 or -1 for whoever is to move, both playing perfectly."""
    if over(board):
        return 0 if winner(board) is None else -1
    return max(-value(played(board, move)) for move in moves(board))


def best_moves(board: str) -> list[int]:
    """The moves that keep the position's value."""
    return [move for move in moves(board) if -value(played(board, move)) == value(board)]


def _board(cells: Sequence[int]) -> str:
    """The board of cells as the one to move sees them."""
    own = "X" if sum(cells) == 0 else "O"
    other = "O" if own == "X" else "X"
    return "".join({0: ".", 1: own, -1: other}[cell] for cell in cells)
