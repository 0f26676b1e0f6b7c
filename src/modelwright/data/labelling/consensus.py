"""One label for each item from many annotators, and how good each annotator is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelwright.data.labelling.label_model import Floats, dawid_skene
from modelwright.data.labelling.votes import MISSING, Votes


@dataclass(frozen=True)
class Settled:
    """The consensus on one item.

    Attributes:
        id: the item.
        label: the most probable label, or None where nobody labelled it and no classifier did.
        probability: of that label.
        votes: how many annotators labelled it.
        agreement: share of them who chose ``label``.
    """

    id: str
    label: str | None
    probability: float
    votes: int
    agreement: float


@dataclass(frozen=True)
class Annotator:
    """One annotator, by what the others and the label model say.

    Attributes:
        name: who.
        labelled: how many items.
        accuracy: estimated by the label model, P(right).
        agreement: share of this annotator's labels equal to the consensus.
        others: share of pairs with another annotator's label of the same item that are equal;
            not a number where nobody else labelled the same items.
    """

    name: str
    labelled: int
    accuracy: float
    agreement: float
    others: float


@dataclass(frozen=True, eq=False)
class Consensus:
    """What was settled, the annotators (best first), and all probabilities (items, labels)."""

    items: list[Settled]
    annotators: list[Annotator]
    probabilities: Floats


def consensus(votes: Votes, *, classifier: Floats | None = None) -> Consensus:
    """Weigh annotators by their estimated error rates (Dawid and Skene).

    Args:
        votes: what the annotators said.
        classifier: (items, labels), out-of-fold probabilities of a classifier, if there is one;
            it decides where annotators are few or split.
    """
    model = dawid_skene(votes, evidence=classifier)
    best = model.probabilities.argmax(axis=1)
    counts = votes.counts
    sizes = counts.sum(axis=1)
    settled = []
    for i, item in enumerate(votes.items):
        n, k = int(sizes[i]), int(best[i])
        known = n > 0 or classifier is not None
        settled.append(
            Settled(
                item,
                votes.labels[k] if known else None,
                float(model.probabilities[i, k]),
                n,
                float(counts[i, k] / n) if n else float("nan"),
            )
        )
    people = []
    for v, name in enumerate(votes.voters):
        rows = np.flatnonzero(votes.given[:, v] != MISSING)
        said = votes.given[rows, v]
        same, pairs = (counts[rows, said] - 1).sum(), (sizes[rows] - 1).sum()
        people.append(
            Annotator(
                name,
                len(rows),
                float(model.accuracy[v]),
                float((said == best[rows]).mean()) if len(rows) else float("nan"),
                float(same / pairs) if pairs else float("nan"),
            )
        )
    people.sort(key=lambda person: (-person.accuracy, person.name))
    return Consensus(settled, people, model.probabilities)
