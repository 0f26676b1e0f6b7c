from __future__ import annotations

import numpy as np

from benchmarks.training.data import Tokens
from benchmarks.tuning import compare, work
from benchmarks.tuning.ours import pair_columns
from modelwright.types import ragged_column


def test_pairs_are_determined_by_their_seed_and_fit_the_context() -> None:
    found, again = work.pairs(40, 3), work.pairs(40, 3)
    for one, other in zip(found, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(_parts(one), _parts(other), strict=True))
        longest = len(one.prompt) + max(len(one.chosen), len(one.rejected))
        assert longest <= work.CONTEXT
        assert one.chosen[-1] == one.rejected[-1] == 0
    assert not np.array_equal(found[0].chosen, work.pairs(40, 4)[0].chosen)


def test_answers_follow_their_rules() -> None:
    pairs = work.pairs(200, 1)
    rules = [np.random.default_rng(r).permutation(work.VOCABULARY) for r in (0, 1)]
    shares = np.array(
        [
            [np.mean(np.concatenate([rule[a[:-2]] == a[1:-1] for a in answers])) for rule in rules]
            for answers in ([p.chosen for p in pairs], [p.rejected for p in pairs])
        ]
    )
    kept, broken = np.diag(shares[:, [work.TUNED_RULE, work.BASE_RULE]]), shares.min(axis=1)
    assert (kept > 0.4).all() and (broken < 0.1).all()


def test_columns_hold_every_token_that_is_counted() -> None:
    pairs = work.pairs(9, 2)
    columns = pair_columns(pairs)
    texts = [ragged_column(columns, name) for name in ("tokens", "rejected")]
    assert sum(len(t.values) for t in texts) == sum(p.read for p in pairs)
    learned = [np.asarray(ragged_column(columns, f).values) for f in ("learn", "rejected_learn")]
    assert [int(x.sum()) for x in learned] == [
        sum(len(p.chosen) for p in pairs),
        sum(len(p.rejected) for p in pairs),
    ]


def test_every_peer_has_a_bar() -> None:
    assert set(compare.MEMORY) <= set(compare.SPEED)


def _parts(pair: work.Pair) -> tuple[Tokens, ...]:
    return pair.prompt, pair.chosen, pair.rejected
