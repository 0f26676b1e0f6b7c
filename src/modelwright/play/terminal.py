"""A person against a player on the terminal: a drawn board, checked moves, undo, resign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from modelwright.data.games import IllegalMove, encoding
from modelwright.play.game import Game
from modelwright.play.players import Player

HELP = "moves | undo | hint | resign | quit, or a move"


class Table:
    """A game between a person and a player.

    Args:
        game: its name.
        player: the other side.
        mine: the turn of the person, 0 to begin.
        say: shows lines.
    """

    def __init__(self, game: str, player: Player, mine: int, say: Callable[[str], None]) -> None:
        self.game, self.player, self.mine, self.say = Game(game), player, mine, say
        self.seen = encoding(game)

    def play(self, lines: Iterable[str]) -> None:
        """Until the game ends, or the person leaves."""
        colours, given = self.seen.colours, iter(lines)
        self.say(f"You play {colours[self.mine]}. {HELP}")
        while (result := self.game.result()) is None:
            if self.game.state.turn != self.mine:
                self._answer()
                continue
            self.say(self.seen.drawn(self.game.state))
            if not self._turn(given):
                return
        self.say(self.seen.drawn(self.game.state))
        mine = -result if self.mine else result
        self.say({1.0: "You have won.", 0.0: "A draw.", -1.0: "You have lost."}[mine])

    def _answer(self) -> None:
        (move,) = self.player.choose(self.game.name, [self.game.stand])
        self.say(f"{self.player.name}: {self.game.state.write(move)}")
        self.game.play(move)

    def _turn(self, given: Iterator[str]) -> bool:
        """One line of the person; False when he leaves."""
        state = self.game.state
        if state.legal_moves() == [()]:
            self.say("You have no move and pass.")
            self.game.play(())
            return True
        line = next(given, "quit").strip()
        match line.casefold():
            case "":
                return True
            case "quit" | "exit":
                return False
            case "resign":
                self.say("You have resigned.")
                return False
            case "undo":
                self._undo()
            case "moves" | "help" | "?":
                self.say(f"{' '.join(state.write(m) for m in state.legal_moves())}\n{HELP}")
            case "hint":
                (move,) = self.player.choose(self.game.name, [self.game.stand])
                self.say(f"{self.player.name} would play {state.write(move)}")
            case _:
                self._move(line)
        return True

    def _move(self, line: str) -> None:
        try:
            self.game.play(self.game.state.parse(line))
        except IllegalMove as error:
            self.say(f"{error}; `moves` lists what is possible")

    def _undo(self) -> None:
        """Back to the person's turn before."""
        before = len(self.game.moves) - 1
        while before >= 0 and self.game.states[before].turn != self.mine:
            before -= 1
        if before < 0:
            self.say("There is nothing to take back.")
        else:
            self.game.undo(len(self.game.moves) - before)
