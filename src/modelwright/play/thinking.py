"""A search that goes on in a thread until its limit, or until somebody stops it.

What it has found so far is said by ``info`` of UCI. The value v of the best move for the player to
move, -1 to 1, is the expected score s = (1 + v) / 2, and its centipawns are taken as the Elo points
of that score, 400 log10(s / (1 - s)), so a pawn as 100 of them.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelwright.data.games import Move
from modelwright.data.games.chess_notation import square_name
from modelwright.data.games.tree_search import Judge, Node, Search, Stand
from modelwright.errors import ModelwrightError
from modelwright.play.matches import elo
from modelwright.play.players import at_once

MOST = 1_000_000  # simulations of a move
TREE = 200_000  # of a move for which no number is given: a tree of about 1 GB
TOLD = 1.0  # seconds between two lines of what was found
SPARED = 0.03  # seconds of each move that are left to the other program and the pipe
MOVES = 30  # that a game is thought to have left, where nobody says
GAINED = 0.8  # share of the seconds won by a move that are spent on it
LARGEST = 0.8  # share of the time left that one move may take
CENTIPAWNS = 10_000  # at most said


@dataclass(frozen=True)
class Limits:
    """When a search is over: whichever comes first.

    Attributes:
        simulations: of the move.
        seconds: from its beginning, or from when the move was no longer a guess of the other's.
        depth: plies of the line of most visits.
    """

    simulations: int = MOST
    seconds: float = math.inf
    depth: int = MOST


def share_of(left: float, gained: float, moves: int = 0) -> float:
    """Seconds for a move, of ``left`` for so many moves (0: to the end), ``gained`` by each."""
    wanted = left / (moves or MOVES) + GAINED * gained
    return max(0.0, min(wanted, LARGEST * left) - SPARED)


class Thinker:
    """The search of one position, which ends with the line ``bestmove``.

    Args:
        judge: of positions.
        stand: where a move is sought; it has legal ones.
        limits: of the search.
        say: writes a line; called from the thread.
        held: its answer waits for ``stop`` or ``hit``, and its seconds begin with the latter.
    """

    def __init__(
        self, judge: Judge, stand: Stand, limits: Limits, say: Callable[[str], None], *, held: bool
    ) -> None:
        self.judge, self.stand, self.limits, self.say = judge, stand, limits, say
        self.held = held
        self._stopped, self._free = threading.Event(), threading.Event()
        self._began = time.monotonic()
        self._ends = math.inf
        self._best = stand.state.legal_moves()[0]
        if not held:
            self.hit()
        self._thread = threading.Thread(target=self._think, daemon=True)
        self._thread.start()

    def hit(self) -> None:
        """From now on its seconds count, and its answer waits for nobody."""
        self._ends, self.held = time.monotonic() + self.limits.seconds, False
        self._free.set()

    def stop(self) -> None:
        """End it; its answer has been given when this returns."""
        self._stopped.set()
        self._free.set()
        self.join()

    def join(self) -> None:
        """Wait until its answer has been given."""
        self._thread.join()

    def _think(self) -> None:
        try:
            with contextlib.suppress(OSError):  # nobody listens any longer
                try:
                    self._search()
                except ModelwrightError as error:
                    self.say(f"info string {' '.join(str(error).split())}")
            self._free.wait()
        finally:
            with contextlib.suppress(OSError):
                self.say(f"bestmove {squares(self._best)}")

    def _search(self) -> None:
        limits = self.limits
        search = Search("chess", self.judge, "puct", at_once(limits.simulations))
        (root,) = search.roots([self.stand])
        told = done = 0
        while True:
            before = time.monotonic()
            rounds = min(search.at_once, limits.simulations - done)
            search.grow([root], rounds)
            done += rounds
            line = line_of(root)
            self._best = line[0]
            now = time.monotonic()
            over = done >= limits.simulations or len(line) >= limits.depth
            # What would end too late is not begun.
            over = over or self._stopped.is_set() or 2 * now - before > self._ends
            if over or now - self._began > (told + 1) * TOLD:
                told = int((now - self._began) / TOLD)
                self.say(said(root, line, now - self._began))
            if over:
                return


def line_of(root: Node) -> list[Move]:
    """The moves visited most, one after another."""
    line, node = [], root
    while node.moves and node.visits.any():
        i = int(node.visits.argmax())
        line.append(node.moves[i])
        if i not in node.children:
            break
        node = node.children[i]
    return line


def said(root: Node, line: Sequence[Move], seconds: float) -> str:
    """What was found, as ``info``."""
    nodes = int(root.visits.sum())
    points = elo((1 + float(root.means[int(root.visits.argmax())])) / 2)
    score = round(max(-CENTIPAWNS, min(CENTIPAWNS, points)))
    speed = round(nodes / max(seconds, 1e-3))
    moves = " ".join(map(squares, line))
    return (
        f"info depth {len(line)} nodes {nodes} nps {speed} time {round(1000 * seconds)}"
        f" score cp {score} pv {moves}"
    )


def squares(move: Move) -> str:
    """A move of chess by its squares, such as e7e8q."""
    return square_name(move[0]) + square_name(move[1]) + "  nbrq"[move[2]].strip()
