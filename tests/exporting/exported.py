"""What the tests of graphs share: written artefacts, batches of raw rows, a stranger's script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from modelwright.exporting.subject import Subject
from modelwright.hub.replay import Replayed
from modelwright.pipeline.export import export, subject_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.runs import Run
from modelwright.types import Array
from tests.exporting import tiny_runs

# A square matrix to turn over; one block, since PyTorch's exporter takes seconds for each.
FIELDS = {"mlp": {"hidden": [16, 16]}, "decoder": {"depth": 1}, "encoder": {"depth": 1}}


@dataclass
class Artefact:
    """An exported run."""

    run: Run
    folder: Path
    subject: Subject
    proof: Replayed

    def copy(self, to: Path) -> Path:
        """The files again, to be spoiled."""
        shutil.copytree(self.folder, to)
        return to


@dataclass
class Artefacts:
    """Exports of tiny runs in one format, each made when it is first asked for."""

    form: str
    place: Path
    known: dict[str, Artefact] = field(default_factory=dict)

    def of(self, kind: str) -> Artefact:
        if kind not in self.known:
            run = tiny_runs.run_of(kind, self.place / "runs", **FIELDS.get(kind, {}))
            out = self.place / kind
            proof = export(run, out, lambda _: None, to=self.form)
            subject = subject_of(run, load_fitted(newest_checkpoint(run)))
            self.known[kind] = Artefact(run, out, subject, proof)
        return self.known[kind]


def raw_rows(artefact: Artefact, count: int) -> tuple[dict[str, Array], list[Array]]:
    """Raw inputs of a batch of so many rows, and what the trained model answers to each alone.

    Text is drawn as tokens of many lengths, numbers near those of the stored examples.
    """
    rng = np.random.default_rng(count)
    subject = artefact.subject
    if hasattr(subject.codec, "front"):
        return _numbers(subject, rng, count)
    longest = subject.config.context
    lengths = rng.integers(1, longest + 1, size=count)
    ids = rng.integers(10, subject.codec.vocabulary, size=(count, int(lengths.max())))
    kept = np.arange(ids.shape[1]) < lengths[:, None]
    ids = np.where(kept, ids, 0)
    answers = []
    for row, length in zip(ids, lengths, strict=True):
        with torch.no_grad():
            answers.append(subject.model(torch.from_numpy(row[None, :length])).numpy()[0])
    raw = {"input_ids": ids}
    if not hasattr(subject.model, "new_cache"):
        raw["attention_mask"] = kept.astype(np.int64)
    return raw, answers


def _numbers(subject, rng, count):
    front = subject.codec.front()
    drawn = [front.raw(subject.examples[i % len(subject.examples)]) for i in range(count)]
    answers = []
    for one in drawn:
        noise = rng.integers(0, 3, size=next(iter(one.values())).shape)
        name = next(iter(one))
        one[name] = (one[name] + noise).astype(one[name].dtype)
        with torch.no_grad():
            given = front(*(torch.from_numpy(a) for a in one.values()))
            answers.append(subject.model(**given).numpy()[0])
    raw = {}
    for name in drawn[0]:
        parts = [one[name] for one in drawn]
        if name == "frames":
            longest = max(p.shape[1] for p in parts)
            # What stands in the padding is nobody's business, so it is not zero.
            parts = [
                np.concatenate([p, np.full((1, longest - p.shape[1], p.shape[2]), 9.0, p.dtype)], 1)
                for p in parts
            ]
        raw[name] = np.concatenate(parts)
    return raw, answers


def assert_same(logits: Array, answers: list[Array]) -> None:
    """Every row of a batch answers as it does alone."""
    assert len(logits) == len(answers)
    for made, alone in zip(logits, answers, strict=True):
        mine = made[: len(alone)] if alone.ndim > 1 else made
        assert np.abs(mine - alone).max() <= 1e-4 * np.abs(alone).max()


def run_as_the_card_says(folder: Path) -> str:
    """What the card's script prints in a Python that cannot find this package."""
    script = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    hidden = "import sys\nsys.modules['modelwright'] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", hidden + script],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
