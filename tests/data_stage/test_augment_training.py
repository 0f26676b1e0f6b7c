"""Augmentation within a training: a pure function of (seed, step), on train alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import api, checkpoint, recipe
from modelwright.data.augment.batches import Augment
from modelwright.data.pictures import encode_png
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline.parts import Parts
from modelwright.runs import Run
from modelwright.training.examples import Augmented, Examples, Shuffled, once
from modelwright.types import Codec, Columns, Ragged, join, rows_in, take
from tests.trainings import Setting

PIXELS = [{"crop": {"padding": 1}}, "flip"]
MIXED = [*PIXELS, {"mixup": {"alpha": 0.5}}]
MASKS = [{"spec_augment": {"time": 0.5, "frequency": 0.5}}]


@dataclass(frozen=True)
class WithAugment(Setting):
    """A small training whose batches are augmented."""

    lines: tuple[Any, ...] = ()

    def examples(self, columns: Columns, codec: Codec) -> Examples:
        plain = super().examples(columns, codec)
        kind = "frames" if isinstance(columns.get("frames"), Ragged) else "vectors"
        return Augmented(plain, Augment(self.lines, kind, seed=3))


SETTINGS = {
    "pixels": WithAugment("vector_classification", lines=tuple(PIXELS)),
    "parts": WithAugment("vector_classification", lines=("resized_crop", "flip")),
    "mixup": WithAugment("vector_classification", lines=tuple(MIXED)),
    "cutmix": WithAugment("vector_classification", lines=({"cutmix": {"alpha": 1.0}},)),
    "sigmoid": WithAugment(
        "vector_classification", objective_options={"sigmoid": True}, lines=tuple(MIXED)
    ),
    "masks": WithAugment("sequence_classification", lines=tuple(MASKS)),
}


def joined(parts: list[Columns]) -> dict[str, bytes]:
    whole = join(parts)
    return {
        name: np.asarray(c.values if isinstance(c, Ragged) else c).tobytes()
        for name, c in whole.items()
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_and_continued_is_the_same_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Law 1 with augmentation on: the states of steps 3 to 6, from a checkpoint or not."""
    setting = SETTINGS[name]
    whole = setting.trained(0, setting.steps)
    first = setting.trainer()
    setting.go(first, 0, 3)
    groups = {"model": first.model.state_dict(), **first.optimizers.saved()}
    path = checkpoint.save(tmp_path, 3, groups, {})
    torch.manual_seed(999)
    found, again = checkpoint.load(path), setting.trainer()
    again.model.load_state_dict(found.tensors["model"])
    again.optimizers.restore(found.tensors)
    assert setting.go(again, 3, setting.steps) == whole[3:]
    without = replace(setting, lines=()).trained(0, setting.steps)
    assert without[0][0] != whole[0][0]  # it does something


@pytest.mark.parametrize("name", SETTINGS)
def test_accumulation_changes_nothing(name: str) -> None:
    """Law 2: the same rows are changed in the same way, however the step is cut."""
    one, three = SETTINGS[name], replace(SETTINGS[name], accumulate=3)
    codec, columns = one.data()
    for step in range(4):
        cut = [s.examples(columns, codec)(step) for s in (one, three)]
        assert joined(cut[0]) == joined(cut[1])
    losses = [[loss for loss, _ in s.trained(0, 4)] for s in (one, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), step=st.integers(0, 9999), lines=st.sampled_from([PIXELS, MIXED]))
def test_labels_stay_and_steps_differ(seed: int, step: int, lines: list[Any]) -> None:
    rng = np.random.default_rng(seed)
    columns: Columns = {
        "features": rng.integers(0, 256, size=(9, 8, 8), dtype=np.uint8),
        "label": rng.integers(-1, 4, size=9),
    }
    augment = Augment(lines, "vectors", seed)
    one, two, other = augment(columns, step), augment(columns, step), augment(columns, step + 1)
    assert np.array_equal(one["label"], columns["label"])
    assert np.array_equal(one["features"], two["features"])
    assert not np.array_equal(one["features"], other["features"])
    if lines is MIXED:
        questions = np.asarray(columns["label"]) < 0
        assert (np.asarray(one["weight"])[questions] == 1).all()
        assert (np.asarray(one["other"])[questions] == -1).all()
        assert (np.asarray(one["other"])[~questions] >= 0).all()


def test_the_loss_of_a_mixture_is_that_of_both_labels_by_their_shares() -> None:
    for options in ({}, {"sigmoid": True}, {"label_smoothing": 0.1}):
        setting = replace(SETTINGS["mixup"], objective_options=options)
        codec, columns = setting.data()
        trainer = setting.trainer()
        (mixed,) = setting.examples(columns, codec)(0)
        objective, generator = trainer.objective, torch.Generator()
        batch = objective.collate(mixed, generator)
        expected = 0.0
        for i in range(rows_in(mixed)):
            row = take(mixed, np.array([i]))
            weight = float(np.asarray(row["weight"])[0])
            for share, label in ((weight, row["label"]), (1 - weight, row["other"])):
                plain = {"features": row["features"], "label": label}
                found = objective.loss(trainer.model, objective.collate(plain, generator))
                expected += share * float(found.detach())
        found = objective.loss(trainer.model, batch).detach()
        assert float(found) == pytest.approx(expected, rel=1e-4)
        assert batch.count == rows_in(mixed)


def test_only_training_is_augmented(tmp_path: Path) -> None:
    """A whole training: its validation rows are those on disk, and its train shard is as it was."""
    pytest.importorskip("sklearn")
    lines = "train.augment=[{crop: {padding: 1}}, {mixup: {alpha: 0.4}}]"
    short = ["train.epochs=null", "train.steps=6", "train.save_every=3", "data.limit=200"]
    quick = ["train.batch=16", "train.compile=false"]
    run = api.train("mlp-digits", lines, *short, *quick, out=tmp_path / "run")
    parts = Parts(run, "train", print)
    parts.values = run.stage("train")["resolved"]
    shard = open_shard(run.path / "data" / "train" / "validation")
    seen = list(parts.validation())
    assert joined(seen) == joined(list(once(shard, 10_000)))
    train = open_shard(run.path / "data" / "train" / "train")
    examples = parts.examples(train)
    assert isinstance(examples, Augmented)
    assert isinstance(examples.inner, Shuffled)
    given, plain = examples(0)[0], examples.inner(0)[0]
    assert np.array_equal(given["label"], plain["label"])
    assert not np.array_equal(np.asarray(given["features"]), np.asarray(plain["features"]))
    assert "weight" in given
    raw = np.asarray(train["features"])
    assert raw.dtype == np.uint8
    again = api.train("mlp-digits", lines, *short, *quick, out=tmp_path / "again")
    assert losses(run) == losses(again)
    without = api.train("mlp-digits", *short, *quick, out=tmp_path / "without")
    assert losses(without) != losses(run)


def test_parts_are_cut_from_larger_pictures_in_training_alone(tmp_path: Path) -> None:
    """Train rows keep both pictures; what is measured and asked is as it is without ``stored``."""
    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(24):
        label = ("dark", "light")[number % 2]
        (pictures / label).mkdir(parents=True, exist_ok=True)
        low = 150 * (number % 2)
        noise = rng.integers(low, low + 100, (30, 40, 3), dtype=np.uint8)
        (pictures / label / f"{number}.png").write_bytes(encode_png(noise))
    values = {
        "name": "parts",
        "data": {"source": str(pictures), "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "codec": {"size": 8, "stored": 16},
        "model": {"family": "fast_cnn", "widths": [8, 8, 8, 8]},
        "train": {
            "task": "image_classification", "steps": 4, "batch": 4, "threads": 1,
            "precision": "float32", "augment": [{"resized_crop": {"scale": [0.3, 1]}}, "flip"],
        },
        "evaluate": {"views": 2},
    }  # fmt: skip
    run = api.run(values, out=tmp_path / "run")
    train = open_shard(run.path / "data" / "train" / "train")
    assert np.asarray(train["larger"]).shape[1:] == (16, 16, 3)
    parts = Parts(run, "train", print)
    parts.values = run.stage("train")["resolved"]
    (changed,) = parts.examples(train)(0)
    assert changed.keys() == {"features", "label"}
    assert np.asarray(changed["features"]).shape == (4, 8, 8, 3)
    assert api.load(run.path)(pictures / "light" / "1.png") in {"dark", "light"}
    plain = api.prepare(values, "codec.stored=0", out=tmp_path / "plain")
    for part in ("train", "validation"):
        kept, other = (open_shard(r.path / "data" / "train" / part) for r in (run, plain))
        assert "larger" not in other
        assert np.array_equal(np.asarray(kept["features"]), np.asarray(other["features"]))


def losses(run: Run) -> list[float]:
    lines = (run.path / "metrics" / "train.jsonl").read_text().splitlines()
    found = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    assert found
    return found


@pytest.mark.parametrize(
    ("task", "lines", "said"),
    [
        ("documents", ["flip"], "Flip is for image, which the codec 'text'"),
        ("documents", ["typos"], "use it under `augment` of a corpus"),
        ("vector_classification", ["spec_augment"], "SpecAugment is for frames"),
        ("vector_classification", ["mixup", "flip"], "may stand, in the last line"),
        ("vector_classification", ["mixup", "cutmix"], "may stand, in the last line"),
        ("image_classification", ["flip", "resized_crop"], "stands in the first line, once"),
        ("object_detection", ["resized_crop"], "moves pixels and not their boxes"),
        ("vector_classification", ["flop"], "no transform 'flop' (did you mean 'flip'?)"),
    ],
)
def test_a_recipe_with_wrong_lines_is_refused(task: str, lines: list[Any], said: str) -> None:
    values = {
        "name": "a", "data": {"source": "x"}, "train": {"task": task, "augment": lines},
    }  # fmt: skip
    with pytest.raises(ModelwrightError) as caught:
        recipe.parse(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mixture_needs_an_objective_for_two_labels() -> None:
    train = {"task": "vector_classification", "objective": "next_token", "augment": ["mixup"]}
    with pytest.raises(ModelwrightError, match="the objective 'next_token' takes none of them"):
        recipe.parse({"name": "a", "data": {"source": "x"}, "train": train})


def test_vectors_are_no_images() -> None:
    columns: Columns = {"features": np.zeros((3, 5), np.float32), "label": np.zeros(3, np.int64)}
    with pytest.raises(ModelwrightError, match="no images"):
        Augment(["flip"], "vectors", 1)(columns, 0)
