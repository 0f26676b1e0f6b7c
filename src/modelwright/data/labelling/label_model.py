"""The label model: what the truth is likely to be, and how good each voter is, from votes alone.

Dawid and Skene (1979), "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm", with Dirichlet priors, so that rare labels and quiet voters stay finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.data.labelling.votes import MISSING, Votes
from modelwright.errors import ModelwrightError

Floats = NDArray[np.float64]
ITERATIONS = 500
TOLERANCE = 1e-8  # of the log posterior, relative
DIAGONAL = 2.0  # pseudo-votes that a voter was right, for each true label
SPREAD = 1.0  # pseudo-votes that it was wrong, shared by the other answers


@dataclass(frozen=True, eq=False)
class LabelModel:
    """What was found.

    Attributes:
        probabilities: float64 (items, labels), of each being the truth.
        prior: float64 (labels,), how frequent each label is.
        confusion: float64 (voters, labels, answers): P(answer | truth). Answers are the labels
            and, where abstaining counts as an answer, "none" as the last.
        accuracy: float64 (voters,): P(answer = truth | it answers with a label).
        posterior: the log posterior after every iteration, which never falls.
    """

    probabilities: Floats
    prior: Floats
    confusion: Floats
    accuracy: Floats
    posterior: list[float]

    @property
    def iterations(self) -> int:
        """How many rounds of EM it took."""
        return len(self.posterior)


def majority(votes: Votes) -> Floats:
    """Share of the votes for each label, (items, labels); without votes all are alike."""
    counts = votes.counts.astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    even = np.full_like(counts, 1 / max(len(votes.labels), 1))
    shares: Floats = np.divide(counts, total, out=even, where=total > 0)
    return shares


def dawid_skene(
    votes: Votes,
    *,
    abstains: bool = False,
    evidence: Floats | None = None,
    balance: Floats | None = None,
    iterations: int = ITERATIONS,
) -> LabelModel:
    r"""Fit by EM from the majority vote to the nearest maximum of the posterior.

    E-step: P(t | votes of i) ∝ p(t) Π_v θ_v[t, vote]; M-step: θ_v[t, a] ∝ pseudo-votes +
    Σ_i P(t | i) [vote = a], and p(t) likewise.

    Args:
        votes: the votes. Items without votes have no part in the fit and get the prior.
        abstains: count silence as an answer. Right for labelling functions, many of which know
            one label only, so that *whether* they speak is all they tell; wrong for annotators,
            who are silent because nobody asked them.
        evidence: (items, labels), calibrated out-of-fold probabilities of a classifier; they
            take the place of the prior p(t) for each item.
        balance: (labels,), the frequency of the labels where it is known; it is then kept.
        iterations: the most rounds of EM.

    Raises:
        ModelwrightError: no labels, or an array of the wrong shape.
    """
    labels = len(votes.labels)
    _check(votes, evidence, balance)
    told = (votes.given != MISSING).any(axis=1)
    if not told.any():
        return _nothing_said(votes, abstains, evidence, balance)
    answers = labels + 1 if abstains else labels
    given = np.where(votes.given == MISSING, labels, votes.given)[told]
    item, voter = np.nonzero(given < answers)
    cell = voter * answers + given[item, voter]
    pseudo = _pseudo(labels, answers)
    starts = np.searchsorted(item, np.arange(int(told.sum())))
    likely = None if evidence is None else np.log(np.maximum(evidence[told], 1e-12))
    belief = majority(votes)[told]
    trace: list[float] = []
    while True:
        prior = balance if balance is not None else _normal(belief.sum(axis=0) + 1.0)
        confusion = _normal(_tally(belief, item, cell, len(votes.voters), answers) + pseudo)
        log_prior, log_confusion = np.log(np.maximum(prior, 1e-300)), np.log(confusion)
        # (voters, answers, labels), so that each vote picks one row of evidence for all labels.
        weights = log_confusion.transpose(0, 2, 1).reshape(-1, labels)[cell]
        joint = np.add.reduceat(weights, starts, axis=0)
        joint += log_prior if likely is None else likely
        belief, likelihood = _shares(joint)
        value = likelihood + float((pseudo * log_confusion).sum())
        if balance is None and evidence is None:
            value += float(log_prior.sum())
        trace.append(value)
        settled = len(trace) > 1 and trace[-1] - trace[-2] <= TOLERANCE * abs(trace[-1])
        if settled or len(trace) >= iterations:
            break
    probabilities = np.tile(prior, (len(votes.items), 1)) if evidence is None else evidence.copy()
    probabilities[told] = belief
    return LabelModel(probabilities, prior, confusion, _accuracy(confusion, prior), trace)


def _pseudo(labels: int, answers: int) -> Floats:
    """The prior as votes that were never given, (labels, answers)."""
    pseudo = np.full((labels, answers), SPREAD / max(answers - 1, 1))
    pseudo[np.arange(labels), np.arange(labels)] = DIAGONAL
    return pseudo


def _shares(joint: Floats) -> tuple[Floats, float]:
    """exp(joint) with rows that add up to 1, and the sum of the logarithms of their totals."""
    top = joint.max(axis=1, keepdims=True)
    belief = np.exp(joint - top)
    total = belief.sum(axis=1, keepdims=True)
    return belief / total, float((top + np.log(total)).sum())


def _tally(
    belief: Floats, item: NDArray[np.int64], cell: NDArray[np.int64], voters: int, answers: int
) -> Floats:
    """Expected votes, (voters, labels, answers)."""
    columns = [
        np.bincount(cell, belief[item, t], minlength=voters * answers)
        for t in range(belief.shape[1])
    ]
    tally: Floats = np.stack(columns, axis=1, dtype=np.float64)
    return tally.reshape(voters, answers, -1).transpose(0, 2, 1)


def _accuracy(confusion: Floats, prior: Floats) -> Floats:
    labels = len(prior)
    spoken = np.einsum("t,vta->v", prior, confusion[:, :, :labels])
    right = np.einsum("t,vtt->v", prior, confusion[:, :, :labels])
    accuracy: Floats = right / spoken
    return accuracy


def _normal(values: Floats) -> Floats:
    total: Floats = values / values.sum(axis=-1, keepdims=True)
    return total


def _nothing_said(
    votes: Votes, abstains: bool, evidence: Floats | None, balance: Floats | None
) -> LabelModel:
    """Without a single vote all there is are the priors."""
    labels = len(votes.labels)
    prior = np.full(labels, 1 / labels) if balance is None else balance
    answers = labels + abstains
    pseudo = _pseudo(labels, answers)
    confusion = np.tile(_normal(pseudo), (len(votes.voters), 1, 1))
    found = np.tile(prior, (len(votes.items), 1)) if evidence is None else evidence.copy()
    return LabelModel(found, prior, confusion, _accuracy(confusion, prior), [])


def _check(votes: Votes, evidence: Floats | None, balance: Floats | None) -> None:
    labels = len(votes.labels)
    if not labels:
        raise ModelwrightError("label model: there are no labels; name at least one")
    if evidence is not None and evidence.shape != (len(votes.items), labels):
        raise ModelwrightError(
            f"label model: evidence of shape {evidence.shape} for {len(votes.items)} items and"
            f" {labels} labels; give a probability for each"
        )
    if balance is not None and (balance.shape != (labels,) or abs(balance.sum() - 1) > 1e-6):
        raise ModelwrightError(
            f"label model: balance must be {labels} shares that add up to 1; correct it"
        )
