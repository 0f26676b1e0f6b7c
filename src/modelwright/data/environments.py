"""Environments of Gymnasium: recorded episodes as rows, simple players, and what a policy earns.

An observation is a vector of numbers, an action one of a few: classic control, for example. A row
is one step of an episode:

    {"id": "CartPole-v1:3:17", "group": "CartPole-v1:3", "environment": "CartPole-v1",
     "episode": 3, "step": 17, "x": [0.02, -0.2, 0.01, 0.3], "action": "1", "reward": 1.0}

``x`` is what was seen before the action, ``reward`` what came of it. The same objects, a line each,
are a file of recorded episodes (JSONL), read as any other; ``group`` keeps an episode in one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import MachineError, ModelwrightError
from modelwright.types import Row

EPISODES = 20  # of a data set that is played here
SIDE_BY_SIDE = 32  # episodes, where a policy is measured
CHANCE = 0.2  # share of the actions of a simple player that are drawn evenly
Observation = NDArray[np.float32]
Player = Callable[[Observation, np.random.Generator], int]


def environment(name: str) -> Any:
    """A new environment of Gymnasium.

    Raises:
        MachineError: the library, or one that the environment needs, is not installed.
        ModelwrightError: there is no such environment, or it is seen or acted on otherwise.
    """
    try:
        import gymnasium  # noqa: PLC0415 - an extra
    except ImportError:
        raise MachineError(
            "environments: need gymnasium; install it with pip install 'modelwright[gym]'"
        ) from None
    try:
        made = gymnasium.make(name)
    except gymnasium.error.DependencyNotInstalled as error:
        raise MachineError(f"environment {name}: {' '.join(str(error).split())}") from error
    except gymnasium.error.Error as error:
        raise ModelwrightError(f"environment {name}: {' '.join(str(error).split())}") from error
    seen, acts = made.observation_space, made.action_space
    if not isinstance(acts, gymnasium.spaces.Discrete) or len(seen.shape or ()) != 1:
        raise ModelwrightError(
            f"environment {name}: actions {acts}, observations of shape {seen.shape}; a few actions"
            " and a vector are meant, such as those of CartPole-v1"
        )
    return made


def observed(values: Any) -> Observation:
    """An observation as float32."""
    return np.asarray(values, dtype=np.float32)


def action_of(made: Any, name: str) -> Any:
    """The action of a label as the environment takes it.

    Raises:
        ModelwrightError: it knows no such action.
    """
    first, count = int(made.action_space.start), int(made.action_space.n)
    if not name.isdecimal() or not first <= int(name) < first + count:
        raise ModelwrightError(
            f"environment {made.spec.id}: no action {name[:20]!r}; they are {first} to"
            f" {first + count - 1}"
        )
    return int(name)


def episode(made: Any, number: int, choose: Callable[[Observation], int], seed: int) -> list[Row]:
    """The steps of one episode."""
    name = made.spec.id
    rows: list[Row] = []
    seen, ended = made.reset(seed=seed)[0], False
    while not ended:
        x = observed(seen)
        action = choose(x)
        seen, reward, terminated, truncated, _ = made.step(action)
        ended = terminated or truncated
        rows.append(
            {
                "id": f"{name}:{number}:{len(rows)}",
                "group": f"{name}:{number}",
                "environment": name,
                "episode": number,
                "step": len(rows),
                "x": x.tolist(),
                "action": str(int(action)),
                "reward": float(reward),
            }
        )
    return rows


def _lean(x: Observation, _: np.random.Generator) -> int:
    """CartPole: push to the side that the pole leans to."""
    return int(x[2] > 0)


def _pump(x: Observation, _: np.random.Generator) -> int:
    """Acrobot: torque the way that the second link turns."""
    return 2 if x[5] > 0 else 0


def _swing(x: Observation, _: np.random.Generator) -> int:
    """MountainCar: push the way that the car goes."""
    return 2 if x[1] > 0 else 0


PLAYERS: dict[str, Player] = {"CartPole-v1": _lean, "Acrobot-v1": _pump, "MountainCar-v0": _swing}
SETS = {f"{name.split('-')[0].lower()}-played": name for name in PLAYERS}


def player(made: Any, seed: int) -> Callable[[Observation], int]:
    """A simple player with some actions of chance; of other environments chance alone."""
    rng, of = np.random.default_rng(seed), made.action_space
    known = PLAYERS.get(made.spec.id)

    def choose(x: Observation) -> int:
        if known is None or rng.random() < CHANCE:
            return int(of.start) + int(rng.integers(of.n))
        return known(x, rng)

    return choose


def played_rows(name: str, path: Path | None = None) -> Iterator[Row]:
    """The rows of ``EPISODES`` episodes that a simple player plays here.

    Raises:
        ModelwrightError: a path is given; nothing is read.
    """
    if path is not None:
        raise ModelwrightError(f"data set of {name}: is played here, leave out 'path'")
    made = environment(name)
    for number in range(EPISODES):
        yield from episode(made, number, player(made, number), number)


def earned(
    name: str,
    choose: Callable[[Observation], Sequence[str]],
    episodes: int,
    *,
    seed: int = 0,
) -> list[float]:
    """What each of so many episodes earned: the sum of its rewards.

    Args:
        name: of the environment.
        choose: the actions' names for observations (n, features).
        episodes: how many, each from a start of its own.
        seed: of the starts.
    """
    found = [0.0] * episodes
    for first in range(0, episodes, SIDE_BY_SIDE):
        numbers = range(first, min(first + SIDE_BY_SIDE, episodes))
        at = {i: environment(name) for i in numbers}
        seen = {i: at[i].reset(seed=seed + i)[0] for i in numbers}
        while seen:
            actions = choose(np.stack([observed(x) for x in seen.values()]))
            for i, action in zip(list(seen), actions, strict=True):
                step = at[i].step(action_of(at[i], action))
                found[i] += float(step[1])
                seen[i] = step[0]
                if step[2] or step[3]:
                    del seen[i]
    return found
