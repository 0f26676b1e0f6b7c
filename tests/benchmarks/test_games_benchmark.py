"""Both sides of the benchmark of games ask the same network, and count what was played."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.games import ours, self_play
from benchmarks.games.network import network
from modelwright.data.codecs.boards import Codec
from modelwright.kernels import playing


def test_the_network_is_always_the_same() -> None:
    one, other = (network(Codec("connect4")) for _ in range(2))
    assert not one.training
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    statistics = one.stem.norm.running_var
    assert isinstance(statistics, torch.Tensor)
    assert not torch.equal(statistics, torch.ones_like(statistics))  # of positions, not the start


@pytest.mark.skipif(not playing.native("connect4"), reason="there is no C++ compiler here")
def test_ours_counts_positions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        sys, "argv", ["ours", "--games", "6", "--simulations", "4", "--threads", str(threads)]
    )
    ours.main()
    found = json.loads(capsys.readouterr().out)
    assert found["games"] == 6
    assert found["positions"] > 6 * 3
    assert found["seconds"] > 0


def test_speed_is_the_median_of_rates() -> None:
    results = [{"positions": p, "seconds": 2.0} for p in (10, 40, 20)]
    assert self_play.speed(results) == 10.0
