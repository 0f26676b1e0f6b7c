"""Episodes of an environment, played by a person in turns or by a simple player, to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from modelwright.data import environments
from modelwright.errors import ModelwrightError

Say = Callable[[str], None]


class Left(Exception):
    """The person has had enough."""


def record(
    name: str, to: Path, episodes: int, *, seed: int, lines: Iterator[str] | None, say: Say
) -> int:
    """Write episodes to a new file, a line of JSON a step; return how many there are.

    Args:
        name: of the environment.
        to: the file, which must not be there yet.
        episodes: how many are played, unless the person leaves before.
        seed: of the first episode's start; the next one has the next.
        lines: what a person types; None: a simple player plays.
        say: called with lines for people.

    Raises:
        ModelwrightError: the file is there already, or nothing was played.
    """
    if to.exists():
        raise ModelwrightError(f"{to}: is there already; give another name, or remove it")
    made, rows, count = environments.environment(name), [], 0
    person = _Typed(made, lines, say) if lines is not None else None
    for number in range(episodes):
        choose = person or environments.player(made, seed + number)
        try:
            steps = environments.episode(made, number, choose, seed + number)
        except Left:
            break
        rows += [json.dumps(row) for row in steps]
        count += 1
        earned = sum(row["reward"] for row in steps)
        say(f"episode {number}: {len(steps)} steps, {earned:g} earned")
    if not rows:
        raise ModelwrightError("record: no episode was played to its end; nothing is written")
    to.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return count


class _Typed:
    """A person who is shown what there is to see and types an action each time."""

    def __init__(self, made: object, lines: Iterator[str], say: Say) -> None:
        self.made, self.lines, self.say = made, lines, say
        self.last = ""

    def __call__(self, x: environments.Observation) -> int:
        self.say(" ".join(f"{value:+.3f}" for value in x.tolist()))
        while True:
            typed = next(self.lines, "quit").strip() or self.last
            if typed == "quit":
                raise Left
            try:
                action: int = environments.action_of(self.made, typed)
            except ModelwrightError as error:
                self.say(f"{error}; quit ends")
                continue
            self.last = typed
            return action
