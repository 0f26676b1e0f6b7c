"""FLOPs as models state them are those that torch counts, for training and for fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modelwright import api
from modelwright.models.model import config_class, families, from_dict
from tests.programs import write_corpus

SHAPE: dict[str, Any] = {
    "family": "decoder",
    "vocabulary": 512,
    "depth": 2,
    "width": 64,
    "heads": 4,
    "kv_heads": 4,
    "context": 128,
}


@pytest.mark.parametrize(("rows", "length", "learned"), [(2, 128, 256), (4, 32, 128), (4, 32, 9)])
def test_a_decoder_computes_what_it_states(rows: int, length: int, learned: int) -> None:
    config: Any = from_dict(SHAPE)
    model: Any = config.build()
    tokens = torch.randint(0, 512, (rows, length))
    weight = torch.nn.Parameter(torch.randn(512, 64))
    with FlopCounterMode(display=False) as counter:  # type: ignore[no-untyped-call]
        hidden = model.hidden(tokens).flatten(0, 1)[:learned]
        (hidden @ weight.T).sum().backward()
    counted = counter.get_total_flops()
    positions = rows * length
    stated = config.flops_per_item(learned / positions, length) * positions
    # Torch does not count the fused attention of a CPU: 6 products of length^2, half of them
    # behind the mask, 2 FLOPs each.
    attention = 6 * config.depth * rows * length**2 * config.width
    assert stated - attention == counted


def test_fewer_learned_positions_and_shorter_rows_cost_less() -> None:
    config: Any = from_dict(SHAPE)
    whole = config.flops_per_item()
    assert config.flops_per_item(1.0, 128) == whole
    assert config.flops_per_item(1.0, 10_000) == whole  # no row is longer than the context
    assert whole - config.flops_per_item(0.25) == 6 * 0.75 * 512 * 64
    assert whole - config.flops_per_item(1.0, 28) == 6 * 2 * 64 * 100


@pytest.mark.parametrize("family", families())
def test_every_family_states_its_cost(family: str) -> None:
    cls = config_class(family)
    assert 0 < cls(**cls.specimen).flops_per_item(0.5, 3.0) <= cls(**cls.specimen).flops_per_item()


def test_a_run_counts_what_its_steps_cost(tmp_path: Path) -> None:
    """Pretraining learns every position; fine-tuning few: its FLOPs a token are lower."""
    write_corpus(tmp_path)
    overrides = ["train.steps=4", "tune.steps=4", f"data.source={tmp_path / 'corpus.jsonl'}"]
    run = api.tune(str(tmp_path / "tiny.yaml"), *overrides, out=tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())["stages"]
    config = from_dict(manifest["train"]["resolved"]["model"])
    train, tune = manifest["train"], manifest["tune"]
    assert train["flops"] == pytest.approx(config.flops_per_item() * train["tokens"])
    assert tune["items"] < tune["tokens"]
    share = tune["items"] / tune["tokens"]
    assert tune["flops"] < config.flops_per_item(share) * tune["tokens"] * (1 + 1e-9)
    assert tune["flops"] > config.flops_per_item(0.0, 0.0) * tune["tokens"]
