"""Distillation: the formula, who is heard when, the teacher's hash, what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import api, checkpoint
from modelwright.data.codecs import fit_codec
from modelwright.data.shards import open_shard
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.objectives.teaching import ROWS, Teaching
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.training.train import Trainer
from modelwright.types import stack
from tests.exporting import tiny_runs
from tests.variations import examples_of

STAGE = {**tiny_runs.STAGE, "task": "vector_classification", "objective": "classification"}
DATA = {"source": "digits", "split": tiny_runs.SPLIT}


def recipe_of(name, model, teacher=None, seed=1, **stage):
    told = {} if teacher is None else {"teacher": str(teacher), "temperature": 3}
    train = {**STAGE, "steps": 12, "learning_rate": 0.01, "save_every": 4, **stage}
    train["objective_options"] = told
    return {"name": name, "seed": seed, "data": DATA, "model": model, "train": train}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    api.train(recipe_of("big", {"family": "mlp", "hidden": [64, 32]}), out=folder / "big")
    small = recipe_of("small", {"family": "mlp", "hidden": [8]}, folder / "big")
    api.train(small, out=folder / "small")
    return folder


@given(st.integers(1, 5), st.integers(1, 4), st.floats(0.5, 8), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_divergence_is_the_formula_and_zero_of_oneself(rows, classes, temperature, seed):
    teaching = Teaching("x", temperature, 0.5)
    draw = torch.Generator().manual_seed(seed)
    z, t = (4 * torch.randn(rows, classes, generator=draw) for _ in range(2))
    two = [F.pad(x, (1, 0)) if classes == 1 else x for x in (z, t)]
    q, p = ((x / temperature).double().softmax(-1) for x in two)
    meant = temperature**2 * (p * (p.log() - q.log())).sum(-1)
    found = teaching.divergence(z, t)
    torch.testing.assert_close(found.double(), meant, rtol=1e-4, atol=1e-4)
    assert float(teaching.divergence(t, t).abs().max()) < 1e-5


def test_words_are_learned_from_a_teacher_in_pieces_of_rows():
    """Loss and gradient of next_token are those of whole logits; held-out loss is of the data."""
    task, examples = examples_of("documents", 6)
    codec = fit_codec(task.codec, examples, {})
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    plain = make_objective("next_token", codec, {})
    taught = make_objective("next_token", codec, {"teacher": "x", "teacher_weight": 0.25})
    cls = config_class("decoder")
    torch.manual_seed(0)
    fields = {**cls.specimen, **cls.data_fields(codec)}
    student, teacher = (cls(**fields).build() for _ in range(2))
    for model in (student, teacher):
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.3)
    taught.teaching.model = teacher.eval()
    batch = taught.collate(columns, torch.Generator())
    student.train()
    loss = taught.loss(student, batch)
    loss.backward()
    found = {n: p.grad.clone() for n, p in student.named_parameters()}
    student.zero_grad()
    rows = (batch.targets["tokens"].flatten() >= 0).nonzero().squeeze(1)
    ours, theirs = (m(**batch.inputs).flatten(0, 1)[rows] for m in (student, teacher))
    soft = taught.teaching.divergence(ours, theirs.detach()).sum()
    whole = 0.75 * plain.loss(student, batch) + 0.25 * soft
    whole.backward()
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=1e-3)
    for name, p in student.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-3)
    assert all(p.grad is None for p in teacher.parameters()) and len(rows) < ROWS * 100
    student.eval()
    assert torch.equal(taught.loss(student, batch), plain.loss(student, batch))


def test_a_student_is_pulled_to_its_teacher(place):
    """With all the weight on the teacher the labels do not matter: its answers are learned."""
    small = {"family": "mlp", "hidden": [8]}
    made = recipe_of("only", small, place / "big", steps=60)
    made["train"]["objective_options"]["teacher_weight"] = 1.0
    run = api.train(made, out=place / "only")
    teacher = load_fitted(newest_checkpoint(api.existing(str(place / "big"))))
    student = load_fitted(newest_checkpoint(run))
    fresh = student.config.build()
    columns = open_shard(run.path / "data" / "train" / "validation")
    batch = student.objective.collate(columns, torch.Generator())
    with torch.no_grad():
        said = [m(**batch.inputs).cpu() for m in (teacher.model, student.model, fresh)]
    meant, learned, drawn = said
    far, near = (Teaching("x", 1.0, 1.0).divergence(z, meant).mean() for z in (drawn, learned))
    assert near < 0.6 * far
    assert run.manifest["teachers"]["train"]["checkpoint"]


def test_stopped_and_continued_is_the_same(place, tmp_path, monkeypatch):
    undisturbed = checkpoint.load(newest_checkpoint(api.existing(str(place / "small"))))
    made = recipe_of("small", {"family": "mlp", "hidden": [8]}, place / "big")
    step = Trainer.step

    def stopping(self, number):
        if number == 6:
            raise Interrupted("stopped by the test", 130)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(Interrupted):
            api.train(made, out=tmp_path / "run")
    again = checkpoint.load(newest_checkpoint(api.train(made, out=tmp_path / "run")))
    for group, tensors in undisturbed.tensors.items():
        assert all(torch.equal(again.tensors[group][n], t) for n, t in tensors.items()), group


def test_another_teacher_is_another_training(place, tmp_path):
    shutil.copytree(place / "big", tmp_path / "big")
    made = recipe_of("moved", {"family": "mlp", "hidden": [8]}, tmp_path / "big", steps=8)
    run = api.train(made, out=tmp_path / "run")
    state = json.loads(checkpoint.load(newest_checkpoint(run)).documents["state.json"])
    assert state["made_from"]["teacher"]
    mark = run.manifest["stages"]["train"]["fingerprint"]
    last = newest_checkpoint(api.existing(str(tmp_path / "big")))
    shutil.rmtree(last)  # an earlier step is the newest now
    run = api.train(made, out=tmp_path / "run")
    assert run.manifest["stages"]["train"]["fingerprint"] != mark
    assert (tmp_path / "run" / "checkpoints" / "train-before-1").is_dir()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"teacher": "nowhere"}, "neither a run nor a published checkpoint"),
        ({"teacher": "big", "temperature": 0}, "temperature 0.* is not above 0"),
        ({"teacher": "big", "teacher_weight": 1.5}, r"teacher_weight 1.5 is not in \(0, 1\]"),
        ({"teacher": "big", "sigmoid": True}, "leave out sigmoid"),
        ({"teachr": "big"}, "did you mean 'teacher'"),
    ],
)
def test_what_cannot_be_is_refused(place, tmp_path, options, why):
    if options.get("teacher") == "big":
        options = {**options, "teacher": str(place / "big")}
    made = recipe_of("bad", {"family": "mlp", "hidden": [8]})
    made["train"]["objective_options"] = options
    with pytest.raises(ModelwrightError, match=why):
        api.train(made, out=tmp_path / "run")


def test_a_teacher_of_other_numbers_is_refused(place, tmp_path):
    made = recipe_of("other", {"family": "mlp", "hidden": [8]}, place / "big", seed=2)
    with pytest.raises(ModelwrightError, match="was trained with another codec"):
        api.train(made, out=tmp_path / "run")
