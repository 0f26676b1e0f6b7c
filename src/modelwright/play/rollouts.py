"""What the model in training does in an environment: a generation of ``play/generations.py``.

Some environments are acted in side by side for a number of steps, and go on where they were in the
next generation. Of rewards r_t, values V_t and the end of an episode follow the generalised
advantage and what the value should have been (arXiv:1506.02438, equation 16):

    δ_t = r_t + γ V_{t+1} - V_t,   A_t = δ_t + γ λ A_{t+1},   R_t = A_t + V_t

with V_{t+1} = 0 and A_{t+1} = 0 where t ends an episode. Where time ran out the episode was cut
short, not lost: V_{t+1} is then that of the last observation, and A_{t+1} = 0. The model's value
stands for (1 - γ) V, a mean reward, so that it has the size of rewards whatever γ is. Advantages
are brought to mean 0 and deviation 1 in each generation.

What an environment had been told since its episode began is written down with every generation: a
training that goes on tells it the same again, and stands where it stood.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelwright.data import environments
from modelwright.data.shards import write_shard
from modelwright.errors import CorruptError
from modelwright.files import make_folder, replace_file
from modelwright.play.frozen import as_it_began
from modelwright.play.generations import Context
from modelwright.runtime import derived_seed
from modelwright.types import Batch, Codec, Columns, Encoded

REFERENCE = "imitation.safetensors"  # the policy as it was before it acted
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How a model acts.

    Attributes:
        environment: of Gymnasium.
        side_by_side: environments that it acts in.
        horizon: steps of each in a generation.
        steps: of training between two generations.
        discount: γ.
        decay: λ.
        pull_half: generations in which the pull towards imitation halves; 0: it stays.
    """

    environment: str
    side_by_side: int = 8
    horizon: int = 256
    steps: int = 80
    discount: float = 0.99
    decay: float = 0.95
    pull_half: float = 5.0


class Acting(Protocol):
    """The objective, as it is used here: ``objectives/clipped_policy.py``."""

    pull_weight: float

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """A batch of observations."""
        ...

    def policy_and_value(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logarithms of the actions' probabilities, and values."""
        ...


@dataclass
class Place:
    """An environment on its way: which episode it is in, what that earned, and its actions."""

    number: int
    episode: int = 0
    earned: float = 0.0
    actions: list[int] = field(default_factory=list)


class Taken(NamedTuple):
    """What was done, each array (horizon, side_by_side) but for the first and the last.

    Attributes:
        features: (horizon, side_by_side, features), float32.
        action: the numbers of the actions.
        chance: the logarithms of their probabilities.
        value: the model's, of these observations.
        reward: what came of it.
        ends: whether the episode ended there, lost or cut short.
        after: V of the last observation of an episode that was cut short, else 0; in units of
            returns.
        last: (side_by_side,), the model's values of what is seen after the last step.
    """

    features: NDArray[np.float32]
    action: NDArray[np.int64]
    chance: Floats
    value: Floats
    reward: Floats
    ends: NDArray[np.bool_]
    after: Floats
    last: Floats


class Maker:
    """Acts for a generation and writes down what came of it."""

    window = 1  # what another policy did teaches this one nothing

    def __init__(
        self, model: nn.Module, codec: Any, objective: Acting, settings: Settings, context: Context
    ) -> None:
        self.model, self.codec, self.objective = model, codec, objective
        self.settings, self.context, self.steps = settings, context, settings.steps
        self.places: list[Place] = []
        self.at: list[Any] = []
        self.seen: list[environments.Observation] = []
        self.ready = -1  # the generation that the environments stand before
        self.reference: nn.Module | None = None

    def make(self, number: int, folder: Path) -> str:
        """Write a generation into a folder, and beside it where the environments stand then."""
        make_folder(folder.parent)
        self._stand(number)
        reference = self._reference(number)
        rng = np.random.default_rng(derived_seed(self.context.seed, "actions", number))
        returns: list[float] = []
        taken = self._act(rng, returns)
        rows = self._rows(taken, reference, number)
        told = json.dumps([asdict(place) for place in self.places])
        replace_file(self._beside(number), told.encode())
        write_shard(folder, rows, self.codec.ragged)
        self.ready = number + 1
        mean = f"{np.mean(returns):.1f} earned on average" if returns else "none of them ended"
        return f"{len(rows):,} steps, {len(returns)} episodes, {mean}"

    def _beside(self, number: int) -> Path:
        return self.context.folder / f"generation-{number:04d}.json"

    # Environments ----------------------------------------------------------------------------

    def _stand(self, number: int) -> None:
        """Have the environments where the generation before left them."""
        if self.ready == number:
            return
        if number == 0:
            self.places = [Place(i) for i in range(self.settings.side_by_side)]
        else:
            self.places = self._kept(self._beside(number - 1))
        self.at = [environments.environment(self.settings.environment) for _ in self.places]
        self.seen = [self._begun(i) for i in range(len(self.places))]
        for i, place in enumerate(self.places):
            for action in place.actions:
                self.seen[i] = environments.observed(self.at[i].step(action)[0])
        self.ready = number

    def _kept(self, path: Path) -> list[Place]:
        try:
            return [Place(**place) for place in json.loads(path.read_bytes())]
        except (OSError, ValueError, TypeError) as error:
            raise CorruptError(
                f"{path}: cannot be read ({error}); delete the folder that it lies in and train"
                " this stage anew"
            ) from error

    def _begun(self, i: int) -> environments.Observation:
        """An environment at the beginning of its episode."""
        place = self.places[i]
        seed = derived_seed(self.context.seed, "episode", place.number, place.episode) % 2**31
        return environments.observed(self.at[i].reset(seed=seed)[0])

    # Acting ----------------------------------------------------------------------------------

    def _act(self, rng: np.random.Generator, returns: list[float]) -> Taken:
        """All steps of a generation; what whole episodes earned goes to ``returns``."""
        s = self.settings
        shape, scale = (s.horizon, s.side_by_side), 1 / (1 - s.discount)
        actions = [environments.action_of(self.at[0], name) for name in self.codec.labels]
        taken = Taken(
            np.empty((*shape, *self.codec.shape), np.float32),
            np.empty(shape, np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape, np.bool_),
            np.zeros(shape),
            np.zeros(s.side_by_side),
        )
        for t in range(s.horizon):
            taken.features[t] = np.stack(self.seen).reshape(taken.features[t].shape)
            chances, taken.value[t] = self._asked(self.model, taken.features[t])
            drawn = (chances + rng.gumbel(size=chances.shape)).argmax(1)
            taken.action[t] = drawn
            taken.chance[t] = np.take_along_axis(chances, drawn[:, None], 1)[:, 0]
            for i, number in enumerate(drawn.tolist()):
                seen, reward, lost, cut, _ = self.at[i].step(actions[number])
                place = self.places[i]
                place.actions.append(actions[number])
                place.earned += float(reward)
                self.seen[i] = environments.observed(seen)
                taken.reward[t, i], taken.ends[t, i] = reward, lost or cut
                if cut and not lost:
                    taken.after[t, i] = self._value(self.seen[i]) * scale
                if lost or cut:
                    returns.append(place.earned)
                    self.places[i] = Place(i, place.episode + 1)
                    self.seen[i] = self._begun(i)
            self.context.tell("")
        taken.last[:] = [self._value(seen) for seen in self.seen]
        return taken

    def _asked(self, model: nn.Module, features: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Logarithms of probabilities (n, actions) and values (n,) of observations."""
        label = np.full(len(features), -1, np.int64)
        with torch.inference_mode():
            batch = self.objective.collate(
                {"features": features, "label": label}, torch.Generator()
            ).to(next(model.parameters()).device)
            chances, value = self.objective.policy_and_value(model, batch)
        return chances.double().cpu().numpy(), value.double().cpu().numpy()

    def _value(self, seen: environments.Observation) -> float:
        return float(self._asked(self.model, seen.reshape(1, *self.codec.shape))[1][0])

    # Rows ------------------------------------------------------------------------------------

    def _rows(self, taken: Taken, reference: nn.Module | None, number: int) -> list[Encoded]:
        s = self.settings
        scale = 1 / (1 - s.discount)
        gained = advantages(
            taken._replace(value=taken.value * scale, last=taken.last * scale), s.discount, s.decay
        )
        wanted = (gained / scale + taken.value).ravel()
        even = ((gained - gained.mean()) / (gained.std() + 1e-8)).ravel()
        features = taken.features.reshape(-1, *self.codec.shape)
        imitated = np.zeros((len(features), len(self.codec.labels)), np.float32)
        if reference is not None:
            imitated = self._asked(reference, features)[0].astype(np.float32)
        pull = 0.5 ** (number / s.pull_half) if s.pull_half else 1.0
        plain = {
            "features": features,
            "label": taken.action.ravel(),
            "chance": taken.chance.ravel().astype(np.float32),
            "advantage": even.astype(np.float32),
            "value": wanted.astype(np.float32),
            "imitated": imitated,
            "pull": np.full(len(features), pull if reference is not None else 0.0, np.float32),
        }
        return [{name: column[i] for name, column in plain.items()} for i in range(len(features))]

    def _reference(self, number: int) -> nn.Module | None:
        """The policy as it was before generation 0; None where nothing pulls towards it."""
        if not self.objective.pull_weight or self.reference is not None:
            return self.reference
        path = self.context.folder / REFERENCE
        self.reference = as_it_began(self.model, path, begins=number == 0)
        return self.reference


def advantages(taken: Taken, discount: float, decay: float) -> Floats:
    """The generalised advantages, (horizon, side_by_side); values in units of returns."""
    found = np.zeros_like(taken.reward)
    after, gained = taken.last, np.zeros(len(taken.last))
    for t in reversed(range(len(found))):
        after = np.where(taken.ends[t], taken.after[t], after)
        gained = np.where(taken.ends[t], 0.0, gained)
        surprise = taken.reward[t] + discount * after - taken.value[t]
        gained = surprise + discount * decay * gained
        found[t], after = gained, taken.value[t]
    return found


def maker(
    model: nn.Module, codec: Codec, objective: Any, settings: dict[str, Any], context: Context
) -> Maker:
    """Who makes the generations of a training, by the settings of the task."""
    return Maker(model, codec, objective, Settings(**settings), context)
