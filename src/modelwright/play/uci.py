"""A player of chess behind the Universal Chess Interface (UCI), so that any chess program connects.

Commands come line by line; what is not understood is passed over, as the protocol asks, and what
is understood and wrong is answered with ``info string``. Nothing that comes in ends the program
but ``quit`` and the end of input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from modelwright.data.games import Move
from modelwright.errors import ModelwrightError
from modelwright.play.game import Game, replayed
from modelwright.play.players import Player

LONGEST = 1 << 20  # characters of a line that are read
_OPTION = "Simulations"
MOST = 1_000_000  # simulations of a move
NO_MOVE = "0000"


class Uci:
    """The state of a conversation.

    Args:
        player: who chooses the moves, for a number of simulations (0: without looking ahead).
        say: writes a line to the other program.
        simulations: of a move, unless the other program sets them.
    """

    def __init__(
        self, player: Callable[[int], Player], say: Callable[[str], None], simulations: int = 0
    ) -> None:
        self.player, self.say, self.simulations = player, say, simulations
        self.game = Game("chess")
        self.kept = ""  # a move that waits for "stop"

    def serve(self, lines: Iterable[bytes]) -> None:
        """Answer every line until ``quit`` or the end."""
        for raw in lines:
            words = raw[:LONGEST].decode("utf-8", "replace").split()
            if words and words[0] == "quit":
                return
            try:
                self._answer(words)
            except ModelwrightError as error:
                self.say(f"info string {' '.join(str(error).split())}")

    def _answer(self, words: list[str]) -> None:
        known = {
            "uci": self._uci,
            "isready": lambda _: self.say("readyok"),
            "ucinewgame": self._new,
            "setoption": self._option,
            "position": self._position,
            "go": self._go,
            "stop": self._stop,
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

    def _new(self, words: list[str]) -> None:  # noqa: ARG002
        self.game, self.kept = Game("chess"), ""

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
        self.game = replayed("chess", moves, position)

    def _go(self, words: list[str]) -> None:
        simulations = self.simulations
        if "nodes" in words:
            given = words[words.index("nodes") + 1 :][:1]
            if given and given[0].isdecimal():
                simulations = min(MOST, int(given[0]))
        move = NO_MOVE
        if self.game.state.legal_moves():
            (chosen,) = self.player(simulations).choose("chess", [self.game.stand])
            move = squares(chosen)
        if "infinite" in words or "ponder" in words:
            self.kept = move  # the other program ends the search itself
        else:
            self.say(f"bestmove {move}")

    def _stop(self, words: list[str]) -> None:  # noqa: ARG002
        if self.kept:
            self.say(f"bestmove {self.kept}")
            self.kept = ""


def squares(move: Move) -> str:
    """A move of chess by its squares, such as e7e8q."""
    names = ["abcdefgh"[s % 8] + str(s // 8 + 1) for s in move[:2]]
    return "".join(names) + " nbrq"[move[2] - 1] * bool(move[2])
