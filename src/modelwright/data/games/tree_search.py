"""Search in a tree of positions (MCTS): by games of chance to the end, or by a network's values.

Many trees grow side by side, so that whoever judges their leaves judges them in batches. A node's
moves are chosen by

    UCT (Kocsis and Szepesvári 2006):     q(a) + c sqrt(ln N / n(a)),  each move once first
    PUCT (Silver et al. 2017):            q(a) + c p(a) sqrt(1 + N) / (1 + n(a))

with n(a) visits of a move, N of all, q(a) the mean value for the player to move there, 0 before the
first visit, and p(a) the judge's prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from modelwright.data.games import Move, State, encoding

Floats = NDArray[np.float64]
Rule = Literal["uct", "puct"]
UCT, PUCT = 1.0, 1.5  # c of each rule


class Stand(NamedTuple):
    """A position: its state, the squares of the last move as bits, and how it came about.

    ``past`` are the states before it, each with the move made there; empty where nobody asks.
    """

    state: State
    touched: int
    past: tuple[tuple[State, Move], ...] = ()


class Judged(NamedTuple):
    """What a judge says of a position: a prior for each legal move, and a value for the mover."""

    priors: Floats
    value: float


class Judge(Protocol):
    """Whoever judges leaves."""

    def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        """Of positions that are not over, with their legal moves: priors in that order, values."""
        ...


class Node:
    """A position that has been judged, with statistics of each of its moves; none: it is over."""

    __slots__ = ("children", "moves", "priors", "stand", "value", "values", "visits")

    def __init__(self, stand: Stand, moves: Sequence[Move], judged: Judged) -> None:
        self.stand, self.moves, self.priors, self.value = stand, moves, *judged
        self.visits = np.zeros(len(moves))
        self.values = np.zeros(len(moves))  # sums, for the player to move
        self.children: dict[int, Node] = {}

    @property
    def turn(self) -> int:
        """The player to move."""
        return self.stand.state.turn

    @property
    def means(self) -> Floats:
        """The mean value of each move for the player to move, 0 of one never tried."""
        return self.values / np.maximum(self.visits, 1)


class Rollouts:
    """A judge who plays to the end by chance; all moves have the same prior."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        """The result of one game of chance from each position."""
        return [
            Judged(np.full(len(legal), 1 / len(legal)), self._played(stand.state, legal))
            for stand, legal in zip(stands, moves, strict=True)
        ]

    def _played(self, state: State, moves: Sequence[Move]) -> float:
        mover, chances = state.turn, iter(self.rng.random(1024).tolist())
        for chance in chances:
            state = state.play(moves[int(chance * len(moves))])
            moves = state.legal_moves()
            if not moves:
                break
        result = state.result() or 0.0
        return -result if mover else result


class Search:
    """Trees of one game, grown together.

    Args:
        game: its name.
        judge: of leaves.
        rule: how moves are chosen on the way down.
        at_once: leaves of one tree judged together; those on their way count as lost meanwhile
            (virtual loss), so that the next one goes elsewhere.
    """

    def __init__(self, game: str, judge: Judge, rule: Rule = "puct", at_once: int = 1) -> None:
        self.touched, self.judge = encoding(game).touched, judge
        self.at_once = at_once
        self.choose = _by_uct if rule == "uct" else _by_puct

    def roots(self, stands: Sequence[Stand]) -> list[Node]:
        """New trees; no position may be over."""
        return self._nodes(stands)

    def grow(self, roots: Sequence[Node], simulations: int) -> None:
        """As many further visits of every root."""
        for done in range(0, simulations, self.at_once):
            rounds = min(self.at_once, simulations - done)
            self.visit([root for root in roots for _ in range(rounds)])

    def visit(self, roots: Sequence[Node], first: Sequence[int] | None = None) -> None:
        """One visit of each root, by its ``first`` move where that is given; judged in a batch."""
        paths = [self._down(r, None if first is None else first[i]) for i, r in enumerate(roots)]
        new = {(id(p[-1][0]), p[-1][1]): p[-1] for p in paths if p[-1][1] not in p[-1][0].children}
        stands = []
        for node, i in new.values():
            state, move = node.stand.state, node.moves[i]
            stands.append(Stand(state.play(move), self.touched(state, move)))
        for (node, i), child in zip(new.values(), self._nodes(stands), strict=True):
            node.children[i] = child
        for path in paths:
            leaf = path[-1][0].children[path[-1][1]]
            for node, i in path:  # what was lost on the way is given back
                node.values[i] += 1 + (leaf.value if node.turn == leaf.turn else -leaf.value)

    def _down(self, root: Node, first: int | None) -> list[tuple[Node, int]]:
        """The moves from a root to a position that is new or over; they count as lost meanwhile."""
        path: list[tuple[Node, int]] = []
        node = root
        while node.moves:
            i = self.choose(node) if path or first is None else first
            path.append((node, i))
            node.visits[i] += 1
            node.values[i] -= 1
            if i not in node.children:
                break
            node = node.children[i]
        return path

    def _nodes(self, stands: Sequence[Stand]) -> list[Node]:
        """Nodes of positions: of those that are over by the result, of the others as judged."""
        legal = [stand.state.legal_moves() for stand in stands]
        open_ = [i for i, moves in enumerate(legal) if moves]
        judged = iter(
            self.judge.judge([stands[i] for i in open_], [legal[i] for i in open_]) if open_ else ()
        )
        found = []
        for stand, moves in zip(stands, legal, strict=True):
            if moves:
                found.append(Node(stand, moves, next(judged)))
            else:
                result = stand.state.result() or 0.0
                over = Judged(_NONE, -result if stand.state.turn else result)
                found.append(Node(stand, moves, over))
        return found


_NONE: Floats = np.zeros(0)


def _by_uct(node: Node) -> int:
    new = np.flatnonzero(node.visits == 0)
    if len(new):
        return int(new[0])
    bonus = UCT * np.sqrt(math.log(node.visits.sum()) / node.visits)
    return int((node.means + bonus).argmax())


def _by_puct(node: Node) -> int:
    bonus = PUCT * node.priors * math.sqrt(node.visits.sum() + 1) / (1 + node.visits)
    return int((node.means + bonus).argmax())
