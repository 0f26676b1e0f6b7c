"""Games of a model with itself: what is learned of them, and that a stopped training goes on."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from modelwright import api, checkpoint
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.objectives.policy_value import Objective
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.play.generations import Context, Generations
from modelwright.play.players import Network
from modelwright.play.self_play import REFERENCE, Maker, Settings, games
from modelwright.runs import Run
from modelwright.types import Columns, rows_in, stack, take
from tests.play.test_players import network

SMALL = Settings(games=6, simulations=6, steps=3, window=2, opening=2)


def test_every_position_has_a_policy_and_the_result() -> None:
    judge = network()
    rows, results = games(judge, SMALL, 0)
    assert len(results) == 6
    columns = stack(rows, judge.codec.ragged)
    batch = judge.objective.collate(columns, torch.Generator())
    assert batch.count == len(rows)
    torch.testing.assert_close(batch.targets["policy"].sum(1), torch.ones(len(rows)))
    assert set(batch.targets["value"].tolist()) <= {-1.0, 0.0, 1.0}
    same = games(network(), SMALL, 0)[1]
    assert same == results


def made(judge: Network, folder: Path, told: list[str]) -> Generations:
    context = Context(7, folder, told.append)
    maker = Maker(judge, SMALL, context)
    return Generations(maker, context, batch=16, parts=2, playing=nullcontext)


def same(one: list[Columns], other: list[Columns]) -> bool:
    return all(
        np.array_equal(np.asarray(a["planes"]), np.asarray(b["planes"]))
        and np.array_equal(np.asarray(a["value"]), np.asarray(b["value"]))
        for a, b in zip(one, other, strict=True)
    )


def test_a_generation_is_played_once_and_its_steps_are_a_function_of_the_seed(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    examples = made(network(), tmp_path / "a", told)
    steps = [examples(step) for step in range(7)]
    assert [line.split(":")[0] for line in told if line] == [f"generation {g}" for g in range(3)]
    assert [rows_in(part) for part in steps[0]] == [8, 8]
    again = made(network(seed=1), tmp_path / "a", told)  # of other parameters: the games are kept
    assert same(again(5), steps[5])
    assert same(made(network(), tmp_path / "b", told)(5), steps[5])
    assert not same(examples(5), examples(4))
    assert [len(part) for part in examples.rows(5)] == [8, 8]


def test_rows_come_from_the_last_generations_only(tmp_path: Path) -> None:
    examples = made(network(), tmp_path, [])
    examples(7)
    sizes = [rows_in(open_shard(tmp_path / f"generation-{g:04d}")) for g in (1, 2)]
    assert max(int(part.max()) for step in range(6, 9) for part in examples.rows(step)) < sum(sizes)
    assert not (tmp_path / "generation-0000").exists()  # not asked for from here


RECIPE = ["data.limit=10", "train.steps=4", "train.epochs=null", "train.batch=16",
          "train.threads=1", "train.compile=false", "tune.threads=1", "tune.compile=false",
          "tune.batch=16", "tune.steps=6", "tune.save_every=2", "tune.validate_every=3",
          "model.width=8", "model.depth=1",
          "tune.options={game: connect4, games: 4, simulations: 4, every: 2, window: 2}",
          ]  # fmt: skip


PULLED = "tune.objective_options={pull_weight: 0.5}"


@pytest.mark.parametrize("more", [[], [PULLED]])
def test_a_stopped_training_plays_the_same_games_again(more: list[str], tmp_path: Path) -> None:
    """The last save and the last generation are lost; going on makes both again, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    api.tune("connect-four-selfplay", *RECIPE, *more, out=whole)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "tune" / "step-00000006")
    (games_of,) = (cut / "played" / "tune").iterdir()
    assert Run.open(cut).stage("tune")["fingerprint"].startswith(games_of.name)
    made = [f"generation-{g:04d}" for g in range(3)] + [REFERENCE] * bool(more)
    assert sorted(p.name for p in games_of.iterdir()) == made
    shutil.rmtree(games_of / "generation-0002")
    api.tune(cut)
    for run in (whole, cut):
        assert checkpoint.verify(run / "checkpoints" / "tune" / "step-00000006") == []
    one, other = (
        checkpoint.load(run / "checkpoints" / "tune" / "step-00000006").tensors
        for run in (whole, cut)
    )
    for group, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[group][name]), f"{group}: {name}"
    folder = next((whole / "played" / "tune").iterdir())
    for file in sorted((folder / "generation-0002").iterdir()):
        assert file.read_bytes() == (games_of / "generation-0002" / file.name).read_bytes()


def pulled(folder: Path, weight: float, half: float = 2.0) -> tuple[Network, Maker]:
    """A network that plays itself, pulled towards what it is now."""
    judge = network()
    judge = Network(judge.model, judge.codec, Objective(judge.codec, pull_weight=weight))
    settings = Settings(games=4, simulations=4, steps=2, window=2, opening=2, pull_half=half)
    return judge, Maker(judge, settings, Context(7, folder, lambda _: None))


def test_positions_have_the_policy_of_the_beginning_and_a_pull_that_fades(tmp_path: Path) -> None:
    judge, maker = pulled(tmp_path, 1.0)
    pulls = []
    for number in range(3):
        maker.make(number, tmp_path / f"generation-{number:04d}")
        columns = open_shard(tmp_path / f"generation-{number:04d}")
        pulls.append(set(np.asarray(columns["pull"]).tolist()))
        batch = judge.objective.collate(take(columns, np.arange(20)), torch.Generator())
        imitated, legal = batch.targets["imitated"], batch.targets["legal"]
        torch.testing.assert_close(imitated.sum(1), torch.ones(20))
        assert not imitated[legal < 0].any()
        began = network()  # the network as it was, whatever it has become
        with torch.no_grad():
            outputs = began.objective.predict(began.model, batch)  # type: ignore[attr-defined]
            chances = outputs.exp().gather(1, legal.clamp(min=0)) * (legal >= 0)
            torch.testing.assert_close(imitated, chances, atol=1e-5, rtol=1e-5)
            for p in judge.model.parameters():
                p.add_(torch.randn_like(p), alpha=0.1)
    assert pulls == [{1.0}, {np.float32(0.5**0.5)}, {0.5}]
    again = pulled(tmp_path, 1.0, half=0.0)[1]  # a training that goes on reads what was kept
    again.make(3, tmp_path / "generation-0003")
    assert set(np.asarray(open_shard(tmp_path / "generation-0003")["pull"]).tolist()) == {1.0}


def test_the_pull_is_the_divergence_from_imitation(tmp_path: Path) -> None:
    """Zero, with no gradient, where the policy is still the same; else as it is written."""
    judge, maker = pulled(tmp_path, 3.0)
    maker.make(0, tmp_path / "generation-0000")
    columns = open_shard(tmp_path / "generation-0000")
    free = Objective(judge.codec)
    held: Objective = judge.objective  # type: ignore[assignment]
    batch = held.collate(columns, torch.Generator())
    same = held.loss(judge.model, batch) - free.loss(judge.model, batch)
    assert same.item() == pytest.approx(0, abs=1e-2)
    gradients = torch.autograd.grad(same, list(judge.model.parameters()), allow_unused=True)
    assert all(g is None or g.abs().max() < 1e-2 for g in gradients)
    with torch.no_grad():
        for p in judge.model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
        p = held.predict(judge.model, batch).double()
        q, legal = batch.targets["imitated"].double(), batch.targets["legal"]
        log_p = p.gather(1, legal.clamp(min=0)).where(legal >= 0, 0.0)
        apart = 3.0 * (torch.xlogy(q, q) - q * log_p).sum()
        found = held.loss(judge.model, batch) - free.loss(judge.model, batch)
    assert found.item() == pytest.approx(apart.item(), rel=1e-3)
    assert found > 1


def test_a_pulled_run_stays_nearer_to_what_it_imitated(tmp_path: Path) -> None:
    apart = []
    for weight in (0.0, 20.0):
        out = tmp_path / f"run-{weight:g}"
        options = [f"tune.objective_options={{pull_weight: {weight}}}", "tune.steps=60",
                   "tune.learning_rate=0.005", "train.steps=60",
                   "tune.options={game: connect4, games: 8, simulations: 8, every: 10, window: 2,"
                   " pull_half: 0}"]  # fmt: skip
        api.tune("connect-four-selfplay", *RECIPE, *options, out=out)
        stages = [load_fitted(newest_checkpoint(Run.open(out), s)) for s in ("train", "tune")]
        codec = stages[0].codec
        columns = open_shard(out / "data" / "tune" / "validation")
        rows = [{k: np.asarray(c[i]) for k, c in columns.items()} for i in range(rows_in(columns))]
        log_q, log_p = (
            Network(one.model, codec, one.objective).asked(rows)[:, :-2] for one in stages
        )
        legal = np.isfinite(log_q)
        each = np.exp(log_q[legal]) * (log_q[legal] - log_p[legal])
        apart.append(float(each.sum() / len(rows)))
    assert apart[1] < apart[0] / 2


@pytest.mark.parametrize("option", ["games: 0", "simulations: 1", "window: 0", "every: 0",
                                    "pull_half: -1"])  # fmt: skip
def test_settings_that_cannot_be_are_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match="self_play"):
        api.tune(
            "connect-four-selfplay",
            *RECIPE,
            f"tune.options={{game: connect4, {option}}}",
            out=tmp_path / "run",
        )
