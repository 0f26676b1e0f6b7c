"""A player of chess behind the Universal Chess Interface (UCI), so that any chess program connects.

Commands come line by line; what is not understood is passed over, as the protocol asks, and what
is understood and wrong is answered with ``info string``. Nothing that comes in ends the program
but ``quit`` and the end of input.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Callable, Iterable

from modelwright.data.games.tree_search import Judge
from modelwright.errors import ModelwrightError
from modelwright.play.game import Game, replayed
from modelwright.play.players import Player
from modelwright.play.thinking import MOST, SPARED, TREE, Limits, Thinker, share_of, squares

LONGEST = 1 << 20  # characters of a line that are read
_OPTION = "Simulations"
NO_MOVE = "0000"
_CLOCKS = (("wtime", "winc"), ("btime", "binc"))  # in the order of turns


class Uci:
    """The state of a conversation.

    Args:
        player: who chooses the moves without looking ahead, at once.
        say: writes a line to the other program.
        judge: of positions, for a search in a thread; None: there is none.
        simulations: of a move for which no limit is given, unless the other program sets them; 0:
            without looking ahead.
    """

    def __init__(
        self,
        player: Player,
        say: Callable[[str], None],
        judge: Judge | None = None,
        simulations: int = 0,
    ) -> None:
        self.player, self.judge, self.simulations = player, judge, simulations
        self.game = Game("chess")
        self.kept = ""  # a move that waits for "stop"
        self.thinker: Thinker | None = None
        self._out, self._one = say, threading.Lock()

    def say(self, line: str) -> None:
        """Write a line whole, whoever else writes one."""
        with self._one:
            self._out(line)

    def serve(self, lines: Iterable[bytes]) -> None:
        """Answer every line until ``quit`` or the end, where a search with a limit ends by it."""
        try:
            for raw in lines:
                words = raw[:LONGEST].decode("utf-8", "replace").split()
                if words and words[0] == "quit":
                    return
                try:
                    self._answer(words)
                except ModelwrightError as error:
                    self.say(f"info string {' '.join(str(error).split())}")
            if self.thinker is not None and not self.thinker.held:
                self.thinker.join()
        finally:
            self._stop([])

    def _answer(self, words: list[str]) -> None:
        known = {
            "uci": self._uci,
            "isready": lambda _: self.say("readyok"),
            "ucinewgame": self._new,
            "setoption": self._option,
            "position": self._position,
            "go": self._go,
            "stop": self._stop,
            "ponderhit": self._hit,
        }
        for i, word in enumerate(words):  # words before a command are passed over
            if word in known:
                known[word](words[i + 1 :])
                return

    def _uci(self, words: list[str]) -> None:  # noqa: ARG002
        self.say("id name modelwright")
        self.say("id author its user")
        said = f"type spin default {self.simulations} min 0 max {MOST}"
        self.say(f"option name {_OPTION} {said}")
        self.say("uciok")

    def _new(self, words: list[str]) -> None:
        self._stop(words)
        self.game = Game("chess")

    def _option(self, words: list[str]) -> None:
        match = re.fullmatch(r"name (\w+) value (\d{1,7})", " ".join(words))
        if not match or match[1] != _OPTION or int(match[2]) > MOST:
            raise ModelwrightError(f"the only option is {_OPTION}, a number from 0 to {MOST}")
        self.simulations = int(match[2])

    def _position(self, words: list[str]) -> None:
        at = words.index("moves") if "moves" in words else len(words)
        kind, moves = words[:1], words[at + 1 :]
        if kind == ["startpos"]:
            position = ""
        elif kind == ["fen"]:
            position = " ".join(words[1:at])
        else:
            raise ModelwrightError("position: startpos or fen is meant; the position stays")
        self._stop([])
        self.game = replayed("chess", moves, position)

    def _go(self, words: list[str]) -> None:
        self._stop([])
        held = "infinite" in words or "ponder" in words
        legal = self.game.state.legal_moves()
        limits = self._limits(words)
        if legal and self.judge is not None and limits.simulations:
            if len(legal) == 1 and math.isfinite(limits.seconds):  # no choice, and time is short
                limits = Limits(1)
            self.thinker = Thinker(self.judge, self.game.stand, limits, self.say, held=held)
            return
        move = NO_MOVE
        if legal:
            (chosen,) = self.player.choose("chess", [self.game.stand])
            move = squares(chosen)
        if held:
            self.kept = move  # the other program ends the search itself
        else:
            self.say(f"bestmove {move}")

    def _limits(self, words: list[str]) -> Limits:
        """When the search of a ``go`` ends; of 0 simulations where there is to be none."""
        given = {
            name: int(number)
            for name, number in itertools.pairwise(words)
            if re.fullmatch(r"-?\d{1,9}", number)
        }
        clock, gain = _CLOCKS[self.game.state.turn]
        seconds = math.inf
        if "movetime" in given:
            seconds = max(0.0, given["movetime"] / 1000 - SPARED)
        elif clock in given:
            left, gained = max(0, given[clock]) / 1000, max(0, given.get(gain, 0)) / 1000
            seconds = share_of(left, gained, max(0, given.get("movestogo", 0)))
        depth = max(1, given.get("depth", MOST))
        bounded = math.isfinite(seconds) or "depth" in given or "infinite" in words
        simulations = TREE if bounded and self.simulations else self.simulations
        if "nodes" in given:
            simulations = max(0, min(MOST, given["nodes"]))
        return Limits(simulations, seconds, depth)

    def _stop(self, words: list[str]) -> None:  # noqa: ARG002
        if self.thinker is not None:
            self.thinker.stop()
            self.thinker = None
        if self.kept:
            self.say(f"bestmove {self.kept}")
            self.kept = ""

    def _hit(self, words: list[str]) -> None:
        if self.thinker is not None:
            self.thinker.hit()
        else:
            self._stop(words)
