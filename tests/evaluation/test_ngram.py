"""The n-gram baseline against a plain dictionary implementation, and as a distribution."""

from __future__ import annotations

import argparse
import gzip
import inspect
import json
import json.decoder
import json.encoder
import math
import textwrap
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.evaluation.baselines import NGram, gzip_bits_per_byte

BEGIN = "begin"


class SlowNGram:
    """The same model written from the formulas, one dictionary an order."""

    def __init__(self, order, documents):
        self.order = order
        counts = Counter()
        for document in documents:
            symbols = [BEGIN] * (order - 1) + list(document)
            for end in range(order, len(symbols) + 1):
                counts[tuple(symbols[end - order : end])] += 1
        self.counts, self.discounts, self.successors = {}, {}, {}
        for length in range(order, 0, -1):
            self.counts[length] = counts
            self.discounts[length] = self.estimate(counts)
            self.successors[length] = defaultdict(list)
            for gram, count in counts.items():
                self.successors[length][gram[:-1]].append(count)
            counts = Counter(gram[1:] for gram in counts)

    @staticmethod
    def estimate(counts):
        n = Counter(counts.values())
        plain = {1: 0.5, 2: 1.0, 3: 1.5}
        if not (n[1] and n[2] and n[3]):
            return plain
        y = n[1] / (n[1] + 2 * n[2])
        found = {k: k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)}
        return {k: d if 0 < d <= k else plain[k] for k, d in found.items()}

    def p(self, byte, context, length):
        if length == 0:
            return 1 / 256
        context = context[len(context) - (length - 1) :]
        lower = self.p(byte, context[1:], length - 1)
        counts = self.successors[length].get(context)
        if not counts:
            return lower
        taken = {c: self.discounts[length][min(c, 3)] for c in counts}
        count = self.counts[length][(*context, byte)]
        kept = count - taken[count] if count else 0.0
        return (kept + sum(taken[c] for c in counts) * lower) / sum(counts)

    def bits_per_byte(self, documents):
        bits, size = [], 0
        for document in documents:
            symbols = [BEGIN] * (self.order - 1) + list(document)
            size += len(document)
            for end in range(self.order - 1, len(symbols)):
                context = tuple(symbols[end - self.order + 1 : end])
                bits.append(-math.log2(self.p(symbols[end], context, self.order)))
        return math.fsum(bits) / size


def source(module):
    return inspect.getsource(module).encode()


@pytest.mark.parametrize("order", [1, 2, 3, 5, 7])
def test_it_agrees_with_the_formulas_written_plainly(order):
    train = [source(json), source(json.encoder)[:9000], "路径。".encode() * 3, b""]
    held_out = [source(json.decoder)[:3000], "新的路径".encode(), b"\x00\xff", b""]
    fast = NGram(order).fit(train)
    slow = SlowNGram(order, train)
    assert fast.bits_per_byte(held_out) == pytest.approx(slow.bits_per_byte(held_out), abs=1e-9)
    context = (*[BEGIN] * order, *b"    def ")[-(order - 1) :] if order > 1 else ()
    plain = [slow.p(byte, context, order) for byte in range(256)]
    np.testing.assert_allclose(fast.distribution(b"    def "), plain, rtol=1e-12)


TEXTS = st.one_of(
    st.binary(max_size=60),
    st.text("ab ", max_size=60).map(str.encode),
    st.sampled_from([source(json)[:400], source(textwrap)[:400]]),
)


@given(
    st.lists(TEXTS, min_size=1, max_size=4).filter(any),
    st.one_of(st.binary(max_size=8), st.text("ab ", max_size=8).map(str.encode)),
    st.integers(1, 7),
)
@settings(max_examples=150, deadline=None)
def test_every_context_seen_or_not_has_a_proper_distribution(train, context, order):
    model = NGram(order).fit(train)
    for at in range(len(context) + 1):
        p = model.distribution(context[:at])
        assert p.shape == (256,)
        assert p.min() > 0  # no byte costs infinitely many bits
        assert abs(p.sum() - 1) < 1e-12


@given(st.lists(TEXTS, min_size=1, max_size=4).filter(any), st.binary(min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_bits_are_the_sum_over_the_bytes_of_a_document(train, document):
    model = NGram(3).fit(train)
    bits = sum(-math.log2(model.distribution(document[:i])[b]) for i, b in enumerate(document))
    assert model.bits_per_byte([document]) == pytest.approx(bits / len(document), abs=1e-9)


def test_documents_do_not_see_each_other():
    model = NGram().fit([source(textwrap)])
    text = source(json)
    a, b = text[:2000], text[2000:3000]
    apart = 2000 * model.bits_per_byte([a]) + 1000 * model.bits_per_byte([b])
    assert model.bits_per_byte([a, b]) == pytest.approx(apart / 3000, abs=1e-12)
    assert model.bits_per_byte([a, b]) == pytest.approx(model.bits_per_byte([b, a]), abs=1e-12)
    assert model.bits_per_byte([a + b]) != model.bits_per_byte([a, b])


def test_on_real_source_the_orders_rank_as_they_should():
    train = [source(m) for m in (argparse, inspect, json.encoder, gzip)]
    held_out = source(textwrap)
    by_order = [NGram(order).fit(train).bits_per_byte([held_out]) for order in (1, 2, 3, 5)]
    assert by_order == sorted(by_order, reverse=True)
    assert by_order[-1] < gzip_bits_per_byte(held_out) < by_order[0] < 8
    # What was trained on is far cheaper than what was not: the counts are really used.
    model = NGram().fit(train)
    assert model.bits_per_byte(train) < 0.75 * model.bits_per_byte([held_out])


def test_gzip_is_what_the_command_would_write():
    text = source(argparse)
    assert gzip_bits_per_byte(text) == 8 * len(gzip.compress(text, 9, mtime=0)) / len(text)
    assert 1.5 < gzip_bits_per_byte(text) < 2.5
    assert gzip_bits_per_byte(bytes(1000)) < 0.5


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(ModelwrightError, match="order 8 is not in 1 to 7"):
        NGram(8)
    with pytest.raises(ModelwrightError, match="call fit first"):
        NGram().bits_per_byte([b"a"])
    with pytest.raises(ModelwrightError, match="documents are empty"):
        NGram().fit([b"", b""])
    with pytest.raises(ModelwrightError, match="documents are empty"):
        NGram().fit([b"a"]).bits_per_byte([])
    with pytest.raises(ModelwrightError, match="no bytes"):
        gzip_bits_per_byte(b"")
