"""Acting in environments: what is learned of it, and that a stopped training goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright import api, checkpoint
from modelwright.cli import main
from modelwright.data import environments
from modelwright.data.codecs.vectors import Codec
from modelwright.data.shards import open_shard
from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models.actor_critic import Config
from modelwright.objectives.clipped_policy import Objective
from modelwright.play import rollouts
from modelwright.play.generations import Context, Generations
from modelwright.play.recording import record
from modelwright.tasks.control import Control
from modelwright.types import Batch, Example

pytest.importorskip("gymnasium", reason="the extra gym is not installed")
SMALL = rollouts.Settings("CartPole-v1", side_by_side=3, horizon=24, steps=4, pull_half=2.0)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    task, rows = Control(), environments.played_rows("CartPole-v1")
    return [example for row in rows for example in task.examples(row)]


def maker(
    examples: list[Example], folder: Path, *, pull_weight: float = 0.1, seed: int = 0
) -> rollouts.Maker:
    codec = Codec.fit(examples)
    torch.manual_seed(seed)
    model = Config(**{**Config.specimen, **Config.data_fields(codec)}).build().eval()
    objective = Objective(codec, pull_weight=pull_weight)
    return rollouts.Maker(model, codec, objective, SMALL, Context(7, folder, lambda _: None))


def returns(taken: rollouts.Taken, t: int, i: int, discount: float, decay: float) -> float:
    """The definition, term by term: Σ_k (γ λ)^k δ_{t+k} up to the end of the episode."""
    total, factor = 0.0, 1.0
    for at in range(t, len(taken.reward)):
        end = bool(taken.ends[at, i])
        last = at + 1 == len(taken.reward)
        after = taken.last[i] if last else taken.value[at + 1, i]
        after = taken.after[at, i] if end else after
        total += factor * (taken.reward[at, i] + discount * after - taken.value[at, i])
        factor *= discount * decay
        if end:
            break
    return total


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.floats(0, 1))
def test_advantages_are_sums_of_surprises(seed: int, discount: float, decay: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (7, 2)
    ends = rng.random(shape) < 0.3
    cut = ends & (rng.random(shape) < 0.5)
    numbers = (rng.normal(size=shape) for _ in range(4))
    chance, value, reward, after = numbers
    taken = rollouts.Taken(
        np.zeros((*shape, 1), np.float32), np.zeros(shape, np.int64), chance, value, reward,
        ends, after * cut, rng.normal(size=2),
    )  # fmt: skip
    found = rollouts.advantages(taken, discount, decay)
    for t in range(7):
        for i in range(2):
            assert found[t, i] == pytest.approx(returns(taken, t, i, discount, decay))


def batch_of(made: rollouts.Maker, folder: Path) -> Batch:
    return made.objective.collate(open_shard(folder), torch.Generator())


def test_rows_hold_what_the_policy_was(examples: list[Example], tmp_path: Path) -> None:
    """Before it has learned, ratios are 1: the loss is -ΣA = 0 and what is added to it."""
    made = maker(examples, tmp_path)
    line = made.make(0, tmp_path / "generation-0000")
    assert line.startswith("72 steps, ")
    batch = batch_of(made, tmp_path / "generation-0000")
    assert batch.count == 72
    chances, _ = made.objective.policy_and_value(made.model, batch)
    taken = chances.gather(1, batch.targets["label"][:, None])[:, 0]
    torch.testing.assert_close(taken, batch.targets["chance"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chances, batch.targets["imitated"], rtol=1e-4, atol=1e-5)
    plain = Objective(made.codec, value_weight=0, entropy_weight=0, pull_weight=5)
    assert abs(float(plain.loss(made.model, batch).detach())) < 1e-2
    assert float(batch.targets["pull"][0]) == 1.0
    (tmp_path / "generation-0002.json").write_text((tmp_path / "generation-0000.json").read_text())
    made.make(3, tmp_path / "generation-0003")
    pull = batch_of(made, tmp_path / "generation-0003").targets["pull"]
    torch.testing.assert_close(pull, torch.full((72,), 0.5**1.5))


def test_the_pull_is_the_divergence_from_imitation(examples: list[Example], tmp_path: Path) -> None:
    made = maker(examples, tmp_path)
    made.make(0, tmp_path / "generation-0000")
    batch = batch_of(made, tmp_path / "generation-0000")
    with torch.no_grad():
        for p in made.model.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    now, _ = Objective.policy_and_value(made.model, batch)
    was = batch.targets["imitated"]
    apart = (was.exp() * (was - now)).sum()
    none, some = (Objective(made.codec, pull_weight=w).loss(made.model, batch) for w in (0.0, 2.0))
    torch.testing.assert_close(some - none, 2 * apart, rtol=1e-4, atol=1e-4)


def test_what_goes_too_far_pulls_no_further(examples: list[Example], tmp_path: Path) -> None:
    """Where the ratio is beyond 1 ± ε on the side that pays, the gradient of the policy is 0."""
    made = maker(examples, tmp_path)
    made.make(0, tmp_path / "generation-0000")
    columns = dict(open_shard(tmp_path / "generation-0000"))
    plain = Objective(made.codec, value_weight=0, entropy_weight=0)
    for sign, held in ((1.0, True), (-1.0, False)):
        changed = {
            **columns,
            "chance": np.asarray(columns["chance"]) - 1.0,  # now e times as likely as it was
            "advantage": np.full(72, sign, np.float32),
        }
        loss = plain.loss(made.model, plain.collate(changed, torch.Generator()))
        made.model.zero_grad()
        loss.backward()
        moved = max(float(p.grad.abs().max()) for p in made.model.policy.parameters())  # type: ignore[union-attr, union-attr]
        assert (moved == 0) == held


def made_steps(made: rollouts.Maker, folder: Path) -> Generations:
    return Generations(
        made, Context(7, folder, lambda _: None), batch=24, parts=2, playing=nullcontext
    )


def test_environments_go_on_where_they_were(examples: list[Example], tmp_path: Path) -> None:
    """One that stops after any generation and one that never does see the same."""
    whole = maker(examples, tmp_path / "whole")
    steps = made_steps(whole, tmp_path / "whole")
    wanted = [steps(step) for step in range(12)]
    for kept in (1, 2):
        folder = tmp_path / f"cut-{kept}"
        shutil.copytree(tmp_path / "whole", folder)
        for later in range(kept, 3):
            shutil.rmtree(folder / f"generation-{later:04d}")
            (folder / f"generation-{later:04d}.json").unlink()
        again = made_steps(maker(examples, folder), folder)
        for one, other in zip(wanted[4 * kept], again(4 * kept), strict=True):
            for name, column in one.items():
                np.testing.assert_array_equal(np.asarray(column), np.asarray(other[name]))
        for name in ("places", "seen"):
            left, right = getattr(whole, name), getattr(again.maker, name)
            assert len(left) == len(right) == 3


def test_every_row_comes_once_before_any_comes_again(
    examples: list[Example], tmp_path: Path
) -> None:
    steps = made_steps(maker(examples, tmp_path), tmp_path)
    rows = np.concatenate([part for step in range(3) for part in steps.rows(step)])
    assert sorted(rows.tolist()) == list(range(72))  # 3 steps of 24
    assert [len(part) for part in steps.rows(5)] == [12, 12]


def test_what_is_missing_is_named(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match=r"generation-0004\.json: cannot be read"):
        maker(examples, tmp_path).make(5, tmp_path / "generation-0005")
    made = maker(examples, tmp_path)
    made.make(0, tmp_path / "generation-0000")
    (tmp_path / rollouts.REFERENCE).write_bytes(b"no tensors")
    with pytest.raises(CorruptError, match="imitation"):
        maker(examples, tmp_path).make(1, tmp_path / "generation-0001")


RECIPE = ["train.epochs=1", "train.threads=1", "tune.threads=1", "train.compile=false",
          "tune.compile=false", "tune.steps=6", "tune.batch=32", "tune.save_every=2",
          "train.options={environment: CartPole-v1, episodes: 3}",
          "tune.options={environment: CartPole-v1, episodes: 3, side_by_side: 2, horizon: 40,"
          " every: 2}"]  # fmt: skip


def test_a_stopped_training_acts_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last save and the last generation are lost; going on makes both again, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    api.tune("cartpole-ppo", *RECIPE, out=whole)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "tune" / "step-00000006")
    (played,) = (cut / "played" / "tune").iterdir()
    shutil.rmtree(played / "generation-0002")
    api.tune(cut)
    one, other = (
        checkpoint.load(run / "checkpoints" / "tune" / "step-00000006").tensors
        for run in (whole, cut)
    )
    for group, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[group][name]), f"{group}: {name}"
    found = api.evaluate(whole)
    measures = json.loads((whole / "evaluation.json").read_text())["measures"]
    assert found is not None
    (earned, _) = [m for m in measures if m["unit"] == "mean return"]
    who = {row["who"]: row["value"] for row in earned["rows"]}
    assert set(who) == {"ours", "most common answer", "random action"}
    assert all(1 <= value <= 500 for value in who.values())
    capsys.readouterr()
    assert main(["play", str(whole), "--games", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 episodes of CartPole-v1: ")
    assert main(["play", str(whole), "--games", "1"]) == 2


@pytest.mark.parametrize("option", ["horizon: 1", "discount: 1.0", "environment: NoSuch-v1"])
def test_settings_that_cannot_be_are_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match="reinforcement|NoSuch"):
        api.tune("cartpole-ppo", *RECIPE, f"tune.options={{{option}}}", out=tmp_path / "run")


@pytest.fixture
def pole() -> Iterator[object]:
    yield environments.environment("CartPole-v1")


def test_a_recorded_episode_is_what_happens(pole: object) -> None:
    """The recorded actions from the same start give the recorded observations and rewards."""
    rows = environments.episode(pole, 3, environments.player(pole, 3), 3)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert {row["group"] for row in rows} == {"CartPole-v1:3"}
    again = environments.environment("CartPole-v1")
    seen = again.reset(seed=3)[0]
    for row in rows:
        assert environments.observed(seen).tolist() == row["x"]
        seen, reward, *_ = again.step(int(row["action"]))
        assert reward == row["reward"]


@pytest.mark.parametrize("name", sorted(environments.PLAYERS))
def test_simple_players_earn_more_than_chance(name: str) -> None:
    made = environments.environment(name)
    wise = environments.PLAYERS[name]
    rng = np.random.default_rng(0)

    def total(choose: object) -> float:
        episodes = (environments.episode(made, i, choose, i) for i in range(4))  # type: ignore[arg-type]
        return sum(row["reward"] for rows in episodes for row in rows)

    space = made.action_space
    assert total(lambda x: wise(x, rng)) > total(lambda _: int(rng.integers(space.n)))


@pytest.mark.parametrize(
    ("name", "said"),
    [("CartPole-v9", "CartPole-v9"), ("Pendulum-v1", "a few actions and a vector are meant")],
)
def test_other_environments_are_refused(name: str, said: str) -> None:
    with pytest.raises(ModelwrightError, match=said) as caught:
        environments.environment(name)
    assert "\n" not in str(caught.value)


def test_an_action_that_is_none_is_refused(pole: object) -> None:
    for name in ("2", "-1", "left"):
        with pytest.raises(ModelwrightError, match="they are 0 to 1"):
            environments.action_of(pole, name)
    assert environments.action_of(pole, "1") == 1


def test_recorded_episodes_are_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    assert main(["record", "CartPole-v1", "--to", str(file), "--episodes", "2"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    rows = list(read_rows(str(file)))
    assert {row["group"] for row in rows} == {"CartPole-v1:0", "CartPole-v1:1"}
    made = environments.environment("CartPole-v1")
    wanted = environments.episode(made, 1, environments.player(made, 1), 1)
    assert [row for row in rows if row["episode"] == 1] == wanted
    assert main(["record", "CartPole-v1", "--to", str(file)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_person_plays_in_turns(tmp_path: Path) -> None:
    """An empty line repeats the last action; what is no action is asked again; quit ends."""
    said: list[str] = []
    typed = iter(["up", "1", *[""] * 400, "quit"])
    file = tmp_path / "mine.jsonl"
    count = record("CartPole-v1", file, 3, seed=0, lines=typed, say=said.append)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert count == 3
    assert {row["action"] for row in rows} == {"1"}
    assert any("they are 0 to 1; quit ends" in line for line in said)
    with pytest.raises(ModelwrightError, match="nothing is written"):
        record("CartPole-v1", tmp_path / "b", 1, seed=0, lines=iter(["0", "quit"]), say=said.append)
