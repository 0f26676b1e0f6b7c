"""Five per cent wrong labels planted in IMDb and CIFAR-10: what the error list finds of them.

The peer is cleanlab with the same out-of-fold probabilities, so that the rule that makes the list
is compared and not the classifier. Both data sets hold wrong labels of their own besides, which
count as false alarms here. ``quick`` takes 5,000 rows of each.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.run import FOLDER, Row
from modelwright.data.archive import tar_members
from modelwright.data.labelling.errors import label_errors
from modelwright.data.labelling.suspicion import quick_probabilities
from modelwright.data.labels import label_set
from modelwright.data.sources import read_rows
from modelwright.errors import MachineError

SHARE, SEED, QUICK = 0.05, 0, 5000
BAR = 0.98  # of the peer's F1

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """How good a list is."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """2 precision recall / (precision + recall)."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def rows(quick: bool) -> list[Row]:
    """Precision, recall and F1 of both lists on both data sets."""
    try:
        from cleanlab.filter import find_label_issues  # noqa: PLC0415
    except ImportError:
        raise MachineError("cleanlab is not installed; pip install 'modelwright[data]'") from None
    answers = []
    for name, load in (("IMDb", _imdb), ("CIFAR-10", _cifar)):
        items, truth = load(QUICK if quick else 0)
        labels = int(truth.max()) + 1
        given, planted = plant(truth, labels)
        began = time.perf_counter()
        shown = [{**row, "label": str(y)} for row, y in zip(items, given.tolist(), strict=True)]
        probabilities = quick_probabilities(shown, given, labels, seed=SEED)
        seconds = time.perf_counter() - began
        listed = label_errors(given, probabilities)
        theirs = np.flatnonzero(find_label_issues(given, probabilities, n_jobs=1))
        ours, peer = judged(listed, planted), judged(theirs, planted)
        right = float((probabilities.argmax(axis=1) == truth).mean())
        first = float(planted[listed[: int(planted.sum())]].mean())
        fact = {"rows": len(truth), "planted": int(planted.sum()), "listed": len(listed)}
        fact |= {"classifier": round(right, 4), "first": round(first, 4), "s": round(seconds, 1)}
        print(f"  labels {name}: {json.dumps(fact)}", file=sys.stderr, flush=True)
        title = f"{name}, 5 % of {len(truth)} labels wrong: {{}} of the list of {len(listed)}"
        for what in ("precision", "recall", "f1"):
            a, b = getattr(ours, what), getattr(peer, what)
            bar = f">= {BAR} of cleanlab's" if what == "f1" else "reported"
            answers.append(Row(title.format(what), a, b, a / b, bar, what != "f1" or a >= BAR * b))
    return answers


def plant(truth: Ints, labels: int, share: float = SHARE) -> tuple[Ints, NDArray[np.bool_]]:
    """Labels of which a share is replaced by another one drawn evenly, and where."""
    generator = np.random.default_rng(SEED)
    chosen = generator.permutation(len(truth))[: round(share * len(truth))]
    given = truth.copy()
    given[chosen] = (given[chosen] + generator.integers(1, labels, len(chosen))) % labels
    return given, given != truth


def judged(listed: Ints, planted: NDArray[np.bool_]) -> Found:
    """Precision and recall of a list of rows."""
    hits = int(planted[listed].sum())
    return Found(hits / max(len(listed), 1), hits / max(int(planted.sum()), 1))


def _data(name: str) -> Path:
    root = Path(os.environ.get("MODELWRIGHT_DATA") or FOLDER.parent.parent / "shared" / "data")
    if not (root / name).is_dir():
        raise MachineError(f"the data set {name} is not in MODELWRIGHT_DATA or ../shared/data")
    return root / name


def _imdb(most: int) -> tuple[list[dict[str, Any]], Ints]:
    found = [dict(row) for row in read_rows("imdb", path=_data("imdb"))]
    return _numbered(found[: most or None])


def _cifar(most: int) -> tuple[list[dict[str, Any]], Ints]:
    from PIL import Image  # noqa: PLC0415

    found: list[dict[str, Any]] = []
    sizes: Counter[str] = Counter()
    for name, content in tar_members(_data("cifar10") / "cifar10_train.tar.xz", suffix=".jpg"):
        label = name.split("/")[-2]
        sizes[label] += 1
        if not most or sizes[label] <= most // 10:
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            found.append({"id": name, "pixels": pixels, "label": label})
    return _numbered(found)


def _numbered(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Ints]:
    labels = label_set(str(row["label"]) for row in found)
    return found, np.array([labels.index(row["label"]) for row in found], dtype=np.int64)
