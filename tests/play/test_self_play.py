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
from modelwright.play.generations import Context, Generations
from modelwright.play.players import Network
from modelwright.play.self_play import Maker, Settings, games
from modelwright.runs import Run
from modelwright.types import Columns, rows_in, stack
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


def test_a_stopped_training_plays_the_same_games_again(tmp_path: Path) -> None:
    """The last save and the last generation are lost; going on makes both again, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    api.tune("connect-four-selfplay", *RECIPE, out=whole)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "tune" / "step-00000006")
    (games_of,) = (cut / "played" / "tune").iterdir()
    assert Run.open(cut).stage("tune")["fingerprint"].startswith(games_of.name)
    assert sorted(p.name for p in games_of.iterdir()) == [f"generation-{g:04d}" for g in range(3)]
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


@pytest.mark.parametrize("option", ["games: 0", "simulations: 1", "window: 0", "every: 0"])
def test_settings_that_cannot_be_are_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match="self_play"):
        api.tune(
            "connect-four-selfplay",
            *RECIPE,
            f"tune.options={{game: connect4, {option}}}",
            out=tmp_path / "run",
        )
