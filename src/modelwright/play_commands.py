"""``modelwright play`` and ``record``: games and episodes, against a model and of one's own."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK, MachineError, ModelwrightError
from modelwright.places import existing_run, is_run

if TYPE_CHECKING:
    from modelwright.pipeline.fitted import Fitted
    from modelwright.play.matches import Score
    from modelwright.play.players import Network, Player

OPPONENTS = (
    "random, greedy, mcts:200, stockfish:3 (depth), 'uci:COMMAND ARGUMENTS@3' (depth),"
    " policy:100, or a run: runs/NAME@train:100"
)

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``play`` to the commands of the command line."""
    text = "play a board game against a trained model, or let it play or act"
    play = commands.add_parser("play", help=text, description=text)
    play.add_argument("run", type=existing_run)
    play.add_argument("--stage", choices=("train", "tune"), help="which model (default: the last)")
    play.add_argument(
        "--search", type=int, default=0, metavar="N", help="look ahead by N simulations a move"
    )
    play.add_argument("--second", action="store_true", help="the model begins")
    play.add_argument(
        "--against",
        action="append",
        metavar="WHO",
        help=f"a match instead, several times for a table: {OPPONENTS}",
    )
    play.add_argument(
        "--games", type=int, default=100, help="of the match, or episodes (default 100)"
    )
    play.add_argument("--seed", type=int, default=0, help="of openings, episodes and chance")
    play.add_argument("--page", action="store_true", help="a board on a page instead")
    play.add_argument("--port", type=int, default=8000, help="of the page; 0 takes a free one")
    play.add_argument("--uci", action="store_true", help="speak UCI, for chess programs")
    play.set_defaults(work=_play, terminable=True)
    _add_record(commands)


def _add_record(commands: Any) -> None:
    text = "record episodes of a Gymnasium environment, to learn from"
    record = commands.add_parser("record", help=text, description=text)
    record.add_argument("environment", help="such as CartPole-v1")
    record.add_argument("--to", type=Path, required=True, help="the JSONL file to write")
    record.add_argument("--episodes", type=int, default=20)
    record.add_argument(
        "--by",
        choices=("me", "player"),
        default="player",
        help="you, who type an action each time, or a simple player (default)",
    )
    record.add_argument("--seed", type=int, default=0, help="of the first episode")
    record.set_defaults(work=_record, terminable=True)


def _record(options: argparse.Namespace) -> int:
    from modelwright.play.recording import record  # noqa: PLC0415

    if options.episodes < 1 or options.seed < 0:
        raise ModelwrightError("--episodes and --seed: positive numbers are meant")
    count = record(
        options.environment,
        options.to,
        options.episodes,
        seed=options.seed,
        lines=_typed() if options.by == "me" else None,
        say=print,
    )
    print(f"{options.to}: {count} episodes")
    return EXIT_OK


def _play(options: argparse.Namespace) -> int:
    fitted = _fitted(options.run, options.stage)
    if fitted.task.asks:
        return _act(fitted, options)
    network = _network(fitted, options.run)
    if options.search < 0 or options.games < 1:
        raise ModelwrightError("--search and --games: positive numbers are meant")
    if options.uci:
        return _uci(network, options.search)
    player = player_of(network, options.search)
    if options.against:
        return _match(network, player, options)
    if options.page:
        from modelwright.play.page import serve  # noqa: PLC0415

        serve(network.game, player, port=options.port)
        return EXIT_OK
    from modelwright.play.terminal import Table  # noqa: PLC0415

    Table(network.game, player, int(options.second), print).play(_typed())
    return EXIT_OK


def network_of(run: Path, stage: str | None = None) -> Network:
    """A run's model as a judge of positions.

    Raises:
        ModelwrightError: it plays no game.
    """
    return _network(_fitted(run, stage), run)


def _fitted(run: Path, stage: str | None) -> Fitted:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.fitted import load_fitted, newest_checkpoint  # noqa: PLC0415

    return load_fitted(newest_checkpoint(api.existing(run), stage))


def _network(fitted: Fitted, run: Path) -> Network:
    from modelwright.play.players import Network  # noqa: PLC0415

    if not hasattr(fitted.codec, "seen_as"):
        raise ModelwrightError(f"{run}: this model plays no game; ask it with `modelwright ask`")
    return Network(fitted.model, fitted.codec, fitted.objective)


def _act(fitted: Fitted, options: argparse.Namespace) -> int:
    """What a policy earns in its environment, on average."""
    import math  # noqa: PLC0415
    import statistics  # noqa: PLC0415

    from modelwright.serving.predictor import Predictor  # noqa: PLC0415

    if options.games < 2:
        raise ModelwrightError("--games: 2 or more episodes are meant")
    task: Any = fitted.task
    policy = Predictor(fitted.model, fitted.codec, fitted.objective)
    found = task.earned(policy, episodes=options.games, seed=options.seed)
    half = 1.96 * statistics.stdev(found) / math.sqrt(len(found))
    print(
        f"{len(found)} episodes of {task.environment}: {statistics.fmean(found):.1f} earned on"
        f" average (95 %: +- {half:.1f}), {min(found):g} to {max(found):g}"
    )
    return EXIT_OK


def player_of(network: Network, simulations: int, name: str = "") -> Player:
    """The network's policy, or a search with it."""
    from modelwright.play.players import NetworkSearch, Policy  # noqa: PLC0415

    if simulations:
        return NetworkSearch(network, simulations, name)
    return Policy(network, name or "policy")


def opponent(text: str, network: Network, seed: int) -> Player:
    """Whom ``--against`` names.

    Raises:
        ModelwrightError: nobody is called so.
    """
    from modelwright.play.engine import named as program  # noqa: PLC0415
    from modelwright.play.engine import stockfish  # noqa: PLC0415
    from modelwright.play.players import Chance, Greed, PlainSearch  # noqa: PLC0415

    known: dict[str, Callable[[int], Player]] = {
        "random": lambda _: Chance(seed),
        "greedy": lambda _: Greed(seed),
        "mcts": lambda n: PlainSearch(n or 200, seed),
        "stockfish": lambda n: stockfish(n or 1),
        "policy": lambda n: player_of(network, n),
    }
    if text.startswith("uci:"):
        return program(text.removeprefix("uci:"))
    match = re.fullmatch(r"([a-z]+)(?::(\d{1,7}))?", text)
    if match and match[1] in known:
        return known[match[1]](int(match[2] or 0))
    named = re.fullmatch(r"(.+?)(?:@(train|tune))?(?::(\d{1,7}))?", text)
    if named and is_run(named[1]):
        other = network_of(Path(named[1]), named[2])
        if other.game != network.game:
            raise ModelwrightError(f"--against: {named[1]} plays {other.game}, not {network.game}")
        name = Path(named[1]).name + (f"@{named[2]}" if named[2] else "")
        return player_of(other, int(named[3] or 0), name)
    raise ModelwrightError(f"--against: {text[:60]!r} is nobody; known: {OPPONENTS}")


def _match(network: Network, player: Player, options: argparse.Namespace) -> int:
    """The scores of matches, and an error where one could not be played to its end."""
    from modelwright.play.matches import match, table  # noqa: PLC0415

    scores: list[tuple[str, Score]] = []
    with ExitStack() as programs:
        others: list[Player] = []
        for text in options.against:  # all of them first, so that a slip costs no match
            others.append(opponent(text, network, options.seed))
            if hasattr(others[-1], "close"):
                programs.callback(others[-1].close)
        for other in others:

            def tell(done: int, name: str = other.name) -> None:
                print(f"{name}: {done} of {options.games} games", file=sys.stderr)

            found = match(network.game, player, other, options.games, seed=options.seed, tell=tell)
            scores.append((other.name, found))
            for fault in found.faults:
                print(f"a game was lost by a fault: {fault}", file=sys.stderr)
            if len(others) == 1:
                print(f"{player.name} against {other.name}: {found.said()}")
    if len(scores) > 1:
        print("\n".join(table(player.name, scores)))
    _whole(scores, options.games)
    return EXIT_OK


def _whole(scores: Sequence[tuple[str, Score]], games: int) -> None:
    """Refuse to call matches whole that ended before.

    Raises:
        MachineError: a program failed again and again.
    """
    short = [f"{name} after {score.games}" for name, score in scores if score.games < games]
    if short:
        raise MachineError(
            f"--against: not all of {games} games were played, as a program failed twice:"
            f" {', '.join(short)}; start it by hand to see why"
        )


def _uci(network: Network, simulations: int) -> int:
    from modelwright.play.programs import lines_of  # noqa: PLC0415
    from modelwright.play.uci import LONGEST, Uci  # noqa: PLC0415

    if network.game != "chess":
        raise ModelwrightError(f"--uci: is for chess, and this model plays {network.game}")

    def say(line: str) -> None:
        print(line, flush=True)

    talk = Uci(player_of(network, 0), say, network, simulations)
    talk.serve(lines_of(sys.stdin.buffer, LONGEST))
    return EXIT_OK


def _typed() -> Iterator[str]:
    """The lines a person types."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
