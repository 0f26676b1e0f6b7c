"""Answers that a model draws to learn from: the very tokens, once, and again when it goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelwright import api, checkpoint
from modelwright.data.codecs import fit_codec
from modelwright.data.shards import open_shard
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.play.answers import Maker, Settings
from modelwright.play.generations import Context, Generations
from modelwright.reporting.record import read_record
from modelwright.reporting.report import render
from modelwright.runtime import derived_seed
from modelwright.serving.engine import Engine, Request
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import make_task
from modelwright.types import Columns, Example, stack, text_turn

SMALL = Settings(questions=3, answers=4, max_tokens=6, steps=2)


def sums() -> tuple[Any, Columns]:
    examples = [
        Example((text_turn("user", f"{a}+1"), text_turn("assistant", f"#### {a + 1}", learn=True)))
        for a in range(8)
    ]
    codec = fit_codec("text", examples, {"vocabulary": 260})
    return codec, stack([codec.encode(e) for e in examples], codec.ragged)


def model_of(codec: Any, seed: int = 0) -> nn.Module:
    cls = config_class("decoder")
    torch.manual_seed(seed)
    fields = {"depth": 1, "width": 16, "heads": 2, "kv_heads": 1, "context": 32}
    made = cls(**fields, **cls.data_fields(codec)).build()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return made


def made(folder: Path, told: list[str], *, kl: float = 0.1, seed: int = 0) -> tuple[Maker, Context]:
    codec, columns = sums()
    task = make_task("rewarded_answers", {})
    context = Context(7, folder, told.append, task, lambda: columns)
    objective = make_objective("group_policy", codec, {"kl": kl})
    return Maker(model_of(codec, seed), codec, objective, SMALL, context), context


def test_what_was_drawn_is_what_is_learned_token_by_token(tmp_path: Path) -> None:
    maker, context = made(tmp_path, [])
    maker.make(0, tmp_path / "generation-0000")
    found = open_shard(tmp_path / "generation-0000")
    codec, columns = sums()
    engine = Engine(maker.model, codec)
    spoiled = 0
    for i in range(SMALL.questions * SMALL.answers):
        row = maker._questions(0)[i // SMALL.answers]
        prompt = engine.prompt(codec.example({n: c[row] for n, c in columns.items()}).given)
        params = SamplingParams(
            max_tokens=6, temperature=1.0, seed=derived_seed(context.seed, "answer", 0, i)
        )
        (alone,) = engine.generate([Request(prompt, params)])
        ended = [] if alone.ended is None else [alone.ended]
        tokens: Any = found["tokens"][i]
        assert np.array(tokens).tolist() == [*prompt, *alone.tokens, *ended]
        assert (alone.ended is not None) == (alone.finish_reason == "stop")
        learned = np.flatnonzero(np.array(found["learn"][i])).tolist()
        assert learned == list(range(len(prompt), len(tokens)))
        spoiled += codec.tokens(alone.text) != alone.tokens
    assert spoiled, "no answer would be changed by writing it down and reading it again"


def test_the_probabilities_are_those_of_the_model_then(tmp_path: Path) -> None:
    maker, _ = made(tmp_path, [])
    maker.make(0, tmp_path / "generation-0000")
    found = open_shard(tmp_path / "generation-0000")
    for i in range(4):
        tokens = torch.from_numpy(np.array(found["tokens"][i]).astype(np.int64))
        places = np.flatnonzero(np.array(found["learn"][i])) - 1
        with torch.no_grad():
            log_p = maker.model(tokens[None])[0].log_softmax(-1).numpy()
        wanted = log_p[places, tokens.numpy()[places + 1]]
        np.testing.assert_allclose(np.array(found["old"][i]), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["old"].values, found["reference"].values)  # type: ignore[union-attr]


def test_a_generation_is_made_once_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    maker, context = made(tmp_path, told)
    examples = Generations(maker, context, batch=12, parts=1, playing=nullcontext)
    steps = [examples(step)[0] for step in range(4)]
    assert [line.split(":")[0] for line in told if line] == ["generation 0", "generation 1"]
    assert not np.array_equal(steps[0]["tokens"].values, steps[2]["tokens"].values)  # type: ignore[union-attr]
    first = json.loads((tmp_path / "generation-0000.json").read_text())
    assert first["generation"] == first["step"] == 0
    assert 0 <= first["reward"] <= 1
    assert len(first["samples"]) == 4
    other, context = made(tmp_path, told, seed=1)
    again = Generations(other, context, batch=12, parts=1, playing=nullcontext)
    assert np.array_equal(again(3)[0]["tokens"].values, steps[3]["tokens"].values)  # type: ignore[union-attr]


def test_the_reference_is_the_model_as_it_began(tmp_path: Path) -> None:
    maker, _ = made(tmp_path, [])
    maker.make(0, tmp_path / "generation-0000")
    with torch.no_grad():
        for p in maker.model.parameters():
            p.mul_(0.9)
    maker.make(1, tmp_path / "generation-0001")
    later, context = made(tmp_path, [])  # as a training that goes on
    later.model.load_state_dict(maker.model.state_dict())
    later.make(1, tmp_path / "again")
    one, other = (open_shard(tmp_path / name) for name in ("generation-0001", "again"))
    for name in one:
        a, b = (getattr(c[name], "values", c[name]) for c in (one, other))
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one["old"].values, one["reference"].values)  # type: ignore[union-attr]
    (context.folder / "reference.safetensors").unlink()
    with pytest.raises(CorruptError, match=r"reference\.safetensors: cannot be read"):
        made(tmp_path, [])[0].make(2, tmp_path / "more")


STAGE = {"threads": 1, "compile": False, "precision": "float32", "optimizer": "adamw",
         "learning_rate": 0.003, "batch": 12, "save_every": 2}  # fmt: skip
RECIPE: dict[str, Any] = {
    "name": "sums",
    "seed": 1,
    "data": {"source": "arithmetic", "limit": 60,
             "split": {"by": "group", "validation": 0.1, "test": 0.1}},
    "codec": {"vocabulary": 260},
    "model": {"family": "decoder", "depth": 1, "width": 16, "heads": 2, "kv_heads": 1,
              "context": 32},
    "train": {"task": "checked_answers", "steps": 4, **STAGE},
    "tune": {"task": "rewarded_answers", "steps": 6, "objective_options": {"kl": 0.1},
             "options": {"questions": 3, "answers": 4, "max_tokens": 6, "every": 2}, **STAGE},
    "evaluate": {"questions": 4, "answer_tokens": 6},
}  # fmt: skip


def test_a_stopped_training_draws_the_same_answers_again(tmp_path: Path) -> None:
    """The last save and the last generation are lost; going on makes both again, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    api.tune(RECIPE, out=whole)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "tune" / "step-00000006")
    (drawn,) = (cut / "played" / "tune").iterdir()
    shutil.rmtree(drawn / "generation-0002")
    (drawn / "generation-0002.json").unlink()
    api.tune(cut)
    one, other = (
        checkpoint.load(run / "checkpoints" / "tune" / "step-00000006").tensors
        for run in (whole, cut)
    )
    for group, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[group][name]), f"{group}: {name}"
    (kept,) = (whole / "played" / "tune").iterdir()
    for file in sorted((kept / "generation-0002").iterdir()):
        assert file.read_bytes() == (drawn / "generation-0002" / file.name).read_bytes()
    assert (kept / "generation-0002.json").read_bytes() == (
        drawn / "generation-0002.json"
    ).read_bytes()

    page = render(read_record(whole))
    assert "Reward of drawn answers, mean" in page
    assert "answers drawn to learn from, and their rewards" in page
    record = read_record(whole)
    assert [step for step, _ in record.metrics["tune"].training["reward"]] == [0, 2, 4]
    (kept / "generation-0001.json").write_text("{")
    assert any("generation-0001.json is damaged" in p for p in read_record(whole).problems)


@pytest.mark.parametrize("option", ["answers: 1", "temperature: 0", "check: maybe", "pattern: a"])
def test_settings_that_cannot_be_are_refused(option: str, tmp_path: Path) -> None:
    name, _, value = option.partition(": ")
    given = {**RECIPE["tune"]["options"], name: int(value) if value.isdigit() else value}
    with pytest.raises(ModelwrightError, match=name):
        api.tune({**RECIPE, "tune": {**RECIPE["tune"], "options": given}}, out=tmp_path / "run")
