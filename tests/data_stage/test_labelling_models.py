"""The label model and the consensus: planted truth is found, degenerate tables do no harm."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.labelling.consensus import consensus
from modelwright.data.labelling.label_model import dawid_skene, majority
from modelwright.data.labelling.votes import MISSING, Votes, votes_of
from modelwright.errors import ModelwrightError

tables = st.integers(1, 4).flatmap(
    lambda labels: st.integers(0, 5).flatmap(
        lambda voters: st.lists(
            st.lists(st.integers(-1, labels - 1), min_size=voters, max_size=voters), max_size=25
        ).map(lambda rows: table(rows, labels, voters))
    )
)


def table(rows, labels: int, voters: int) -> Votes:
    array = np.array(rows, dtype=np.int64).reshape(len(rows), voters)
    names = [f"label {i}" for i in range(labels)]
    return Votes(
        [f"i{i}" for i in range(len(rows))], [f"v{i}" for i in range(voters)], names, array
    )


def simulated(accuracies, items=2000, labels=3, asked=0.6, seed=0):
    """Votes of annotators with known accuracies, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, labels, items)
    wrong = (truth[:, None] + generator.integers(1, labels, (items, len(accuracies)))) % labels
    right = generator.random((items, len(accuracies))) < np.array(accuracies)
    given = np.where(right, truth[:, None], wrong)
    given[generator.random(given.shape) >= asked] = MISSING
    return table(given.tolist(), labels, len(accuracies)), truth


def by_the_book(votes: Votes, rounds: int) -> list[list[float]]:
    """Dawid and Skene's formulas (2.3 to 2.5), one number at a time, with the same priors."""
    labels, voters = range(len(votes.labels)), range(len(votes.voters))
    given = votes.given.tolist()
    belief = majority(votes).tolist()
    told = [i for i, row in enumerate(given) if max(row) != MISSING]
    for _ in range(rounds):
        prior = [1.0 + sum(belief[i][t] for i in told) for t in labels]
        prior = [p / sum(prior) for p in prior]
        confusion = {}
        for v in voters:
            for t in labels:
                row = [2.0 if a == t else 1.0 / (len(labels) - 1) for a in labels]
                for i in told:
                    if given[i][v] != MISSING:
                        row[given[i][v]] += belief[i][t]
                confusion[v, t] = [n / sum(row) for n in row]
        for i in range(len(given)):
            joint = list(prior)
            for t in labels:
                for v in voters:
                    if given[i][v] != MISSING:
                        joint[t] *= confusion[v, t][given[i][v]]
            belief[i] = [p / sum(joint) for p in joint]
    return belief


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_em_is_the_formulas_of_the_paper(rounds):
    votes, _ = simulated([0.9, 0.7, 0.6, 0.4], items=60, asked=0.7)
    ours = dawid_skene(votes, iterations=rounds)
    assert ours.iterations == rounds
    assert ours.probabilities == pytest.approx(np.array(by_the_book(votes, rounds)), abs=1e-9)


def test_accuracies_and_truth_are_recovered_and_beat_the_majority():
    planted = [0.95, 0.9, 0.6, 0.45, 0.4, 0.4]
    votes, truth = simulated(planted)
    model = dawid_skene(votes)
    assert np.abs(model.accuracy - planted).max() < 0.06
    weighed = (model.probabilities.argmax(axis=1) == truth).mean()
    counted = (majority(votes).argmax(axis=1) == truth).mean()
    assert weighed > counted + 0.05
    assert model.prior == pytest.approx([1 / 3] * 3, abs=0.05)


def test_rules_that_know_one_label_are_weighed_by_when_they_speak():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 4000)
    columns = []
    for label, hit, false in ((0, 0.4, 0.02), (0, 0.3, 0.25), (1, 0.5, 0.05), (1, 0.3, 0.02)):
        speaks = generator.random(4000) < np.where(truth == label, hit, false)
        columns.append(np.where(speaks, label, MISSING))
    votes = table(np.stack(columns, axis=1).tolist(), 2, 4)
    model = dawid_skene(votes, abstains=True)
    told = (votes.given != MISSING).any(axis=1)
    right = (model.probabilities.argmax(axis=1) == truth)[told].mean()
    assert right > (majority(votes).argmax(axis=1) == truth)[told].mean()
    assert model.accuracy[0] > model.accuracy[1]  # the noisy rule is trusted less
    assert model.confusion.shape == (4, 2, 3)


@given(tables, st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_table_gives_finite_probabilities_and_a_rising_posterior(votes, abstains):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = dawid_skene(votes, abstains=abstains)
        shares = majority(votes)
    for found in (model.probabilities, shares):
        assert found.shape == (len(votes.items), len(votes.labels))
        assert np.isfinite(found).all()
        assert found.sum(axis=1) == pytest.approx(1.0)
    assert np.isfinite(model.confusion).all()
    assert model.confusion.sum(axis=2) == pytest.approx(1.0)
    steps = np.diff(model.posterior)
    assert (steps >= -1e-6 * np.abs(model.posterior[:1] or [1.0])).all()


@given(tables, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_items_and_voters_has_no_say(votes, random):
    rows, columns = list(range(len(votes.items))), list(range(len(votes.voters)))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = Votes(
        [votes.items[i] for i in rows],
        [votes.voters[i] for i in columns],
        votes.labels,
        votes.given[rows][:, columns],
    )
    one = dawid_skene(votes, iterations=20).probabilities[rows]
    assert dawid_skene(shuffled, iterations=20).probabilities == pytest.approx(one, abs=1e-6)


def test_evidence_decides_where_nobody_voted_and_known_balance_is_kept():
    votes = table([[0, 0], [-1, -1], [1, 0]], 2, 2)
    evidence = np.array([[0.5, 0.5], [0.1, 0.9], [0.02, 0.98]])
    model = dawid_skene(votes, evidence=evidence)
    assert model.probabilities[1] == pytest.approx([0.1, 0.9])
    assert model.probabilities[2].argmax() == 1
    balance = np.array([0.9, 0.1])
    assert dawid_skene(votes, balance=balance).prior.tolist() == [0.9, 0.1]


def test_what_cannot_be_is_one_line():
    votes = table([[0, 1]], 2, 2)
    with pytest.raises(ModelwrightError, match="evidence of shape"):
        dawid_skene(votes, evidence=np.ones((2, 2)))
    with pytest.raises(ModelwrightError, match="balance"):
        dawid_skene(votes, balance=np.array([0.9, 0.9]))
    with pytest.raises(ModelwrightError, match="no labels"):
        dawid_skene(Votes([], [], [], np.zeros((0, 0), dtype=np.int64)))
    with pytest.raises(ModelwrightError, match="outside"):
        table([[2]], 2, 1)
    with pytest.raises(ModelwrightError, match="did you mean 'pos'"):
        votes_of([("a", "ann", "poss")], ["pos", "neg"])


def test_a_later_vote_replaces_an_earlier_one():
    records = [("a", "ann", "pos"), ("b", "bob", "neg"), ("a", "ann", "neg")]
    votes = votes_of(records, ["pos", "neg"], items=["b"])
    assert (votes.items, votes.voters) == (["b", "a"], ["ann", "bob"])
    assert votes.given.tolist() == [[MISSING, 1], [1, MISSING]]


def test_consensus_beside_cleanlab():
    """The same votes: majority where clear, annotators in the same order, at least as right."""
    multi = pytest.importorskip("cleanlab.multiannotator", reason="cleanlab is not installed")
    import pandas as pd

    planted = [0.9, 0.8, 0.7, 0.5, 0.35]
    votes, truth = simulated(planted, items=1500)
    told = (votes.given != MISSING).any(axis=1)
    votes = Votes([v for v, t in zip(votes.items, told, strict=True) if t], votes.voters,
                  votes.labels, votes.given[told])  # fmt: skip
    truth = truth[told]
    generator = np.random.default_rng(1)
    guess = np.where(
        generator.random(len(truth)) < 0.7, truth, generator.integers(0, 3, len(truth))
    )
    probabilities = np.full((len(truth), 3), 0.15)
    probabilities[np.arange(len(truth)), guess] = 0.7
    frame = pd.DataFrame(np.where(votes.given == MISSING, np.nan, votes.given))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = multi.get_label_quality_multiannotator(frame, probabilities, verbose=False)
    theirs = peer["label_quality"]["consensus_label"].to_numpy()
    ours = consensus(votes, classifier=probabilities)
    label = np.array([int(item.label.split()[1]) for item in ours.items])
    # cleanlab holds to the classifier here, which is right as often as it; both together are more.
    assert (label == truth).mean() > (theirs == truth).mean() + 0.03
    assert (label == truth).mean() > (guess == truth).mean() + 0.03
    assert [person.name for person in ours.annotators] == ["v0", "v1", "v2", "v3", "v4"]
    ranked = peer["annotator_stats"]["annotator_quality"].sort_values(ascending=False).index
    assert [f"v{i}" for i in ranked] == ["v0", "v1", "v2", "v3", "v4"]
    clear = [item for item in ours.items if item.votes > 2 and item.agreement == 1]
    assert clear and all(item.probability > 0.5 for item in clear)


def test_consensus_of_nothing_and_of_one():
    alone = consensus(table([[0], [-1], [1]], 2, 1))
    assert [item.label for item in alone.items] == ["label 0", None, "label 1"]
    assert np.isnan(alone.annotators[0].others) and alone.annotators[0].agreement == 1
    assert consensus(table([], 2, 0)).items == []
