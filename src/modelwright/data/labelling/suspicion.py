"""The whole road to a list of suspicious labels: rows, features, folds, probabilities, list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelwright.data.folds import By, assign_folds
from modelwright.data.labelling.errors import Floats, Ints, Suspect, suspects
from modelwright.data.labelling.features import hashed_ngrams, image_features, scaled
from modelwright.data.labelling.items import labelling_rows, pixels_of
from modelwright.data.labelling.out_of_fold import Features, out_of_fold
from modelwright.data.labelling.probabilities import read_probabilities
from modelwright.data.labels import label_set
from modelwright.data.sources import require_columns
from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.types import Row

FOLDS = 5
TEXT_STRENGTH = 10.0  # chosen on 5,000 reviews by how well planted errors are ranked
DENSE_STRENGTH = 0.01  # chosen on 5,000 images likewise


@dataclass(frozen=True, eq=False)
class Examined:
    """The rows' ids, their labels as positions in ``labels``, probabilities, and the list."""

    ids: list[str]
    labels: list[str]
    given: Ints
    probabilities: Floats
    suspects: list[Suspect]


def examine(
    source: str,
    *,
    label: str = "label",
    column: str = "text",
    probabilities: Path | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> Examined:
    """Look for wrong labels in a source.

    Args:
        source: a file, folder or data set with labels.
        label: the column of the label.
        column: the column of the text.
        probabilities: a file of a model's own out-of-fold probabilities (`read_probabilities`),
            its labels in the order of ``label_set``; left out, a quick classifier is fitted.
        folds: how many parts are each held out once; rows of one group stay together.
        seed: of the folds and, for images, of the features.

    Raises:
        ModelwrightError: no labels, fewer than two, or rows of which features cannot be made.
    """
    rows = labelling_rows(source, column)
    require_columns(rows, [label], source)
    names = [str(row[label]) for row in rows]
    labels = label_set(names)
    number = {name: i for i, name in enumerate(labels)}
    given = np.array([number[name] for name in names], dtype=np.int64)
    ids = [str(row["id"]) for row in rows]
    if probabilities is not None:
        found = read_probabilities(probabilities, ids, labels)
    else:
        found = quick_probabilities(
            rows, given, len(labels), label=label, column=column, folds=folds, seed=seed
        )
    return Examined(ids, labels, given, found, suspects(ids, given, found, labels))


def quick_probabilities(
    rows: Sequence[Row],
    given: Ints,
    labels: int,
    *,
    label: str = "label",
    column: str = "text",
    folds: int = FOLDS,
    seed: int = 0,
) -> Floats:
    """Out-of-fold probabilities (rows, labels) of a quick classifier that fits the rows."""
    grouped = any(str(row.get("group", row["id"])) != str(row["id"]) for row in rows)
    by: By = "group" if grouped else "row"
    parts = assign_folds(rows, folds, by, label=label, seed=seed)
    features, strength = features_of(rows, column, seed)
    folded = np.array(parts, dtype=np.int64)
    return out_of_fold(features, given, labels, folded, strength=strength)


def features_of(rows: Sequence[Row], column: str, seed: int = 0) -> tuple[Features, float]:
    """What the classifier sees, and the strength that suits it.

    Raises:
        ModelwrightError: rows that are neither texts nor images nor vectors of one length.
    """
    texts = [row[column] for row in rows if isinstance(row.get(column), str)]
    if len(texts) == len(rows):
        return hashed_ngrams(texts), TEXT_STRENGTH
    images = [pixels for row in rows if (pixels := pixels_of(row)) is not None]
    if len(images) == len(rows):
        return image_features(images, seed=seed), DENSE_STRENGTH
    vectors = [np.asarray(row["x"]) for row in rows if isinstance(row.get("x"), np.ndarray)]
    if len(vectors) == len(rows) and len({v.shape for v in vectors}) == 1:
        flat = np.stack(vectors).reshape(len(rows), -1).astype(np.float32)
        return scaled(flat), DENSE_STRENGTH
    raise ModelwrightError(
        f"label errors: rows need {column!r} (text), images, or 'x' of one shape; give"
        " --probabilities of a model of your own for other rows"
    )


def write_suspects(path: Path, found: Sequence[Suspect]) -> None:
    """The list as JSON Lines, the surest first, whole or not at all."""
    lines = (
        json.dumps(
            {
                "id": s.id,
                "given": s.given,
                "suggested": s.suggested,
                "given_probability": round(s.given_probability, 6),
                "suggested_probability": round(s.suggested_probability, 6),
            },
            ensure_ascii=False,
        )
        for s in found
    )
    replace_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
