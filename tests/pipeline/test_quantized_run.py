"""Fewer bits a weight, through a run: written once, found again, answered with; its cost told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models.quantized import KINDS, PackedLinear
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.quantized import quantize, quantized
from modelwright.runs import Run
from modelwright.serving.engine import Request
from tests.exporting import tiny_runs

FAMILIES = ("decoder", "encoder", "mlp")


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("quantized")
    made = {}
    for name in FAMILIES:
        recipe = {"name": name, "seed": 1, **tiny_runs.RECIPES[name](folder / name)}
        made[name] = api.train(recipe, out=folder / f"run-{name}")
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_is_loaded(runs: dict[str, Run], family: str, kind: str) -> None:
    """The bits on disk give the loss that was told, and the matrices never exist whole."""
    made = quantize(runs[family], kind, _quiet)
    assert made.bytes_after < made.bytes_before
    assert made.loss_before is not None and made.loss_after is not None
    bound = {"int4": 0.25, "int8": 0.02, "bfloat16": 0.02}[kind]
    assert abs(made.loss_after - made.loss_before) < bound
    fitted = load_fitted(made.path)
    packed = [m for m in fitted.model.modules() if isinstance(m, PackedLinear)]
    assert packed and not any(type(m) is torch.nn.Linear for m in fitted.model.modules())
    assert not any(t.is_meta for t in (*fitted.model.parameters(), *fitted.model.buffers()))


def test_it_is_made_once_and_anew_for_another_model(runs: dict[str, Run]) -> None:
    """By the seal of the checkpoint that it was made of."""
    run = runs["decoder"]
    path = quantized(run, "int8", _quiet)
    before = (path / "COMPLETE").stat().st_mtime_ns
    assert quantized(run, "int8", _quiet) == path
    assert (path / "COMPLETE").stat().st_mtime_ns == before
    stored = json.loads((path / "weights.json").read_bytes())
    documents = {**checkpoint.load(path, groups=[]).documents}
    documents["weights.json"] = json.dumps({**stored, "source": "another"}).encode()
    tensors = checkpoint.load(path).tensors
    shutil.rmtree(path)
    checkpoint.save(path.parent, int(path.name.split("-")[1]), tensors, documents)
    assert quantized(run, "int8", _quiet) == path
    assert json.loads((path / "weights.json").read_bytes()) == stored


def test_answers_are_those_of_the_packed_model(runs: dict[str, Run]) -> None:
    """The engine's tokens, alone and in company, are those of the whole sequence read again."""
    model = api.load(runs["decoder"], weights="int8")
    texts = [model.complete(text, max_tokens=10) for text in ("import ", "def ")]
    assert all(isinstance(text, str) for text in texts)
    fitted = model.fitted
    codec, held = fitted.codec, fitted.model
    engine = model.answerer.engine
    asked = [codec.tokens(text) for text in ("import ", "def ", "x = ")]
    together = engine.generate([Request(tokens) for tokens in asked])
    for tokens, found in zip(asked, together, strict=True):
        alone = engine.generate([Request(tokens)])[0]
        assert alone.tokens == found.tokens
        whole = torch.tensor([[*tokens, *found.tokens]])
        with torch.inference_mode():
            logits = held(whole)[0, len(tokens) - 1 : -1]
        best = logits.max(dim=-1).values
        taken = logits[torch.arange(len(found.tokens)), torch.tensor(found.tokens)]
        assert ((best - taken) < 0.05 * logits.std()).all()  # rounding may turn a near tie


def test_bad_input_is_one_line(runs: dict[str, Run], tmp_path: Path) -> None:
    """A kind that is not there, and a checkpoint whose matrices were changed."""
    with pytest.raises(ModelwrightError, match="int4, int8, bfloat16"):
        quantize(runs["mlp"], "int2", _quiet)
    path = quantize(runs["mlp"], "int8", _quiet).path
    found = checkpoint.load(path)
    stored = json.loads(found.documents["weights.json"])
    name = next(iter(stored["matrices"]))
    stored["matrices"][name][0] += 16
    documents = {**found.documents, "weights.json": json.dumps(stored).encode()}
    wrong = checkpoint.save(tmp_path, 0, found.tensors, documents)
    with pytest.raises(CorruptError, match=r"weights\.json"):
        load_fitted(wrong)
    assert load_fitted(newest_checkpoint(runs["mlp"])).step
