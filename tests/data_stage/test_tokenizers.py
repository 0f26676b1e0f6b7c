"""Tokenizers: the same ids by the quick road as by the library, trained or loaded."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from modelwright.data.codecs import load_codec, save_codec
from modelwright.data.codecs.text import Codec
from modelwright.data.tokenizing.alphabet import SPECIAL, SPLIT
from modelwright.data.tokenizing.encoder import (
    PieceEncoder,
    TextEncoder,
    bytes_per_token,
    load_encoder,
    with_layout,
)
from modelwright.data.tokenizing.fast import GPT2, GPT4, PATTERNS, Fast, Native, Texts, ranks_of
from modelwright.data.tokenizing.train import drawn, quotas, train_tokenizer
from modelwright.errors import ModelwrightError
from modelwright.kernels import bpe
from modelwright.types import Example, text_turn

SAMPLE = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, they'll say; we've won't.\n",
    "def f(x):\n    return x + 1\n\n\n\tif x:\r\n\t\tpass\r\n",
    "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。人工智能的发展……",
    "Ünïcödé ÀÉÎ naïve straße ﬁ ſ ǅ Ⅷ ½ ٣٤٥ १२३ 🙂👩‍👩‍👧 a\u0301 \u00a0\u2003\u3000x \u200bzero",
    "aaaa aaaaaaa abababab bababa  aab baa   \n  \n aaaaaa",
] * 3

# What splitting and merging may trip over, more often than at random.
PIECES = st.sampled_from(
    ["a", "b", "aa", "ab", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'ſ", "1", "1234", "½", "٣",
     "é", "e\u0301", "中文", "。", "🙂", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c", "\0", "_",
     "<|end|>", "ǅ", "ª", "\u0345", "\U000323af", "\U0001e4d0", "!?", "the ", "...", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60))


def trained(pattern: str = SPLIT, vocabulary: int = 600, **model: object) -> Tokenizer:
    made = Tokenizer(models.BPE(**model))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SAMPLE, trainer)
    return made


@pytest.fixture(scope="module", params=[(p, r) for p in PATTERNS for r in (Native, Fast)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[TextEncoder, Tokenizer]:
    """The library with each pattern, and each of the quick roads with it."""
    pattern, road = request.param
    if road is Native and not bpe.native():
        pytest.skip("no compiler")
    made = trained(pattern)
    plain = Tokenizer.from_str(made.to_str())
    plain.encode_special_tokens = True
    encoder = TextEncoder(made)
    found = ranks_of(json.loads(made.to_str()))
    assert not isinstance(found, str), found
    encoder._fast = road(found)
    return encoder, plain


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_the_quick_road_gives_the_ids_of_the_library(pair, text):
    encoder, plain = pair
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    expected = plain.encode(whole, add_special_tokens=False).ids
    quick = encoder._fast.encode(whole)
    assert quick is not None and quick.tolist() == expected
    lone = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert (
        encoder.encode(text).tolist() == plain.encode(lone, add_special_tokens=False).ids
    )  # pairs of surrogates in a str are two lone ones


HAN = st.text("，。不見山水\n ab", max_size=40)  # few, so that merges cross their borders


@settings(max_examples=100, deadline=None)
@given(
    learned=st.lists(HAN, min_size=1, max_size=20),
    size=st.integers(262, 400),
    texts=st.lists(st.one_of(HAN, TEXTS), max_size=8),
    composed=st.booleans(),
)
def test_many_texts_are_encoded_as_each_alone(learned, size, texts, composed):
    """Also where merges make tokens across the borders of characters."""
    document = json.loads(train_tokenizer(learned, vocabulary=size).to_str())
    document["normalizer"] = {"type": "NFC"} if composed else None
    plain = Tokenizer.from_str(json.dumps(document))
    plain.encode_special_tokens = True
    encoder = TextEncoder(Tokenizer.from_str(json.dumps(document)))
    whole = [text.encode("utf-8", "replace") for text in texts]
    held = Texts.of([b"before", *whole])
    ids, lengths = encoder.encode_many(Texts(held.data, held.begins[1:], held.ends[1:]))
    expected = [
        [*plain.encode(text.decode(), add_special_tokens=False).ids, encoder.end] for text in whole
    ]
    assert lengths.tolist() == [len(one) for one in expected]
    assert ids.tolist() == [i for one in expected for i in one]
    for text, one in zip(whole, expected, strict=True):
        assert encoder.encode(text.decode()).tolist() == one[:-1]


@settings(max_examples=30, deadline=None)
@given(
    words=st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=30),
    size=st.integers(262, 290),
    probes=st.lists(st.text("ab ", max_size=40), min_size=5, max_size=5),
)
def test_it_holds_for_the_most_ambiguous_of_vocabularies(words, size, probes):
    made = train_tokenizer(words, vocabulary=size)
    encoder = TextEncoder(Tokenizer.from_str(made.to_str()))
    if encoder.hurry():  # else it says why, and the library does it
        for text in [*probes, *words]:
            expected = made.encode(text, add_special_tokens=False).ids
            assert encoder.encode(text).tolist() == expected


def broken(change: Callable[[dict], None]) -> str:
    document = json.loads(trained().to_str())
    change(document)
    found = ranks_of(document)
    assert isinstance(found, str)
    return found


def test_what_cannot_be_shown_to_be_equal_is_left_to_the_library():
    def swapped(d: dict) -> None:
        merges = d["model"]["merges"]
        merges[0], merges[-1] = merges[-1], merges[0]

    assert "no earlier merge" in broken(swapped)
    assert "made twice" in broken(lambda d: d["model"]["merges"].append(d["model"]["merges"][0]))
    assert "dropout" in broken(lambda d: d["model"].update(dropout=0.1))
    assert "normalizer" in broken(lambda d: d.update(normalizer={"type": "Lowercase"}))
    assert "known patterns" in broken(
        lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+|\W+")
    )
    assert "not special" in broken(lambda d: d["added_tokens"][0].update(special=False))
    assert "256 bytes" in broken(lambda d: d["model"]["vocab"].pop("a"))
    assert "Unigram" in broken(lambda d: d["model"].update(type="Unigram"))


def test_a_token_that_its_own_text_never_gives_is_found():
    """tiktoken takes "abc" as one word; the merges make a, bc of it, since bc comes first."""
    document = json.loads(trained(vocabulary=260).to_str())
    vocabulary = document["model"]["vocab"]
    merges = [["b", "c"], ["a", "b"], ["ab", "c"]]
    for merge in merges:
        vocabulary["".join(merge)] = len(vocabulary)
    document["model"]["merges"] = merges
    assert "never made" in str(ranks_of(document))
    encoder = TextEncoder(Tokenizer.from_str(json.dumps(document)))
    assert not encoder.hurry()
    assert encoder.encode("abc").tolist() == [vocabulary["a"], vocabulary["bc"]]


def test_ids_out_of_order_and_composed_text_are_taken_too():
    document = json.loads(trained(GPT4).to_str())
    vocabulary = document["model"]["vocab"]
    names = sorted(vocabulary, key=lambda t: (t not in SPECIAL, t[::-1]))
    document["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    document["added_tokens"] = [
        t | {"id": names.index(t["content"])} for t in document["added_tokens"]
    ]
    document["normalizer"] = {"type": "NFC"}
    text = "e\u0301t\u0065\u0301 " + "".join(SAMPLE)
    plain = Tokenizer.from_str(json.dumps(document))
    encoder = TextEncoder(Tokenizer.from_str(json.dumps(document)))
    assert encoder.hurry(), encoder.slow_because
    assert encoder._fast.encode(text).tolist() == plain.encode(text, add_special_tokens=False).ids


def test_a_byte_level_pre_tokenizer_of_gpt2_is_known():
    made = trained(GPT2)
    document = json.loads(made.to_str())
    stored = Tokenizer.from_str(json.dumps(document))
    stored.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = TextEncoder(stored)
    assert encoder.hurry(), encoder.slow_because
    for text in SAMPLE:
        assert (
            encoder._fast.encode(text).tolist() == made.encode(text, add_special_tokens=False).ids
        )


def test_endless_white_space_and_endless_words():
    made = trained()
    encoder = TextEncoder(Tokenizer.from_str(made.to_str()))
    assert encoder.hurry()
    for text in (" " * 20_000 + "x", " " * 60_000 + "x", "a" * 20_000, "中" * 9_000):
        assert encoder.encode(text).tolist() == made.encode(text, add_special_tokens=False).ids


def test_real_text_in_english_and_chinese(data):
    texts = []
    for name in ("english_novels/novels.tar.xz", "chinese_poetry/poetry.tar.xz"):
        with tarfile.open(data(name)) as archive:
            member = next(m for m in archive if m.isfile() and m.size > 100_000)
            found = archive.extractfile(member)
            assert found is not None
            texts.append(found.read(200_000).decode(errors="ignore"))
    made = train_tokenizer(texts, vocabulary=2000)
    encoder = TextEncoder(Tokenizer.from_str(made.to_str()))
    assert encoder.hurry(), encoder.slow_because
    for text in texts:
        assert (
            encoder._fast.encode(text).tolist() == made.encode(text, add_special_tokens=False).ids
        )


@pytest.mark.skipif(not bpe.native(), reason="no C++ compiler here")
def test_threads_that_share_a_tokenizer_do_not_see_each_others_text():
    """A server tokenises prompts of different clients at once."""
    tokenizer = trained()
    shared = TextEncoder(tokenizer)
    assert shared.hurry() and isinstance(shared._fast, Native)
    rng = np.random.default_rng(0)
    words = "".join(SAMPLE).split()
    texts = [" ".join(rng.choice(words, 400 * (1 + i))) for i in range(8)]
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = pool.map(lambda text: shared.encode(text).tolist(), texts)
            assert list(found) == expected


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_trained_tokenizers_give_every_text_back_and_come_out_the_same(kind):
    one = train_tokenizer(SAMPLE, kind=kind, vocabulary=400)
    two = train_tokenizer(iter(SAMPLE), kind=kind, vocabulary=400)
    assert one.to_str() == two.to_str()
    codec = Codec(one)
    assert codec.vocabulary <= 400
    for text in [*SAMPLE, "never seen: Ωмега \x00\x7f"]:
        assert codec.text(codec.tokens(text)) == text


def test_wrong_settings_are_said():
    with pytest.raises(ModelwrightError, match=r"no kind 'bep' \(did you mean 'bpe'"):
        train_tokenizer(SAMPLE, kind="bep", vocabulary=400)
    with pytest.raises(ModelwrightError, match="below 260"):
        train_tokenizer(SAMPLE, vocabulary=100)


@given(
    sizes=st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.integers(0, 10**9), max_size=8
    ),
    budget=st.integers(1, 10**9),
)
def test_quotas_fill_the_budget_and_no_source_gives_more_than_another_that_has_more(sizes, budget):
    shares = quotas(sizes, budget)
    taken = {s: shares[s] * sizes[s] for s in sizes}
    assert set(shares) == set(sizes) and all(0 <= s <= 1 for s in shares.values())
    assert sum(taken.values()) <= budget * (1 + 1e-9) + 1
    if sizes:
        full = min(budget, sum(sizes.values()))
        assert sum(taken.values()) >= full - len(sizes) - 1e-6 * full
        most = max(taken.values())
        for source, size in sizes.items():
            assert taken[source] >= min(size, most) - len(sizes) - 1e-6 * most


def test_a_sample_is_a_fair_coin_of_seed_and_name():
    names = [f"row {i}" for i in range(4000)]
    drawn_ = [n for n in names if drawn(1, n, 0.25)]
    assert 850 < len(drawn_) < 1150
    assert drawn_ == [n for n in names if drawn(1, n, 0.25)]
    assert drawn_ != [n for n in names if drawn(2, n, 0.25)]
    assert all(drawn(1, n, 1.0) for n in names) and not any(drawn(1, n, 0.0) for n in names)
    assert {n for n in names if drawn(1, n, 0.1)} < set(drawn_)  # a smaller share is part of it


def test_bytes_per_token_by_language():
    encoder = TextEncoder(train_tokenizer(SAMPLE, vocabulary=300))
    texts = [("en", SAMPLE[0]), ("zh", SAMPLE[2]), ("en", SAMPLE[1]), ("none", "")]
    found = bytes_per_token(encoder, texts)
    assert list(found) == ["en", "none", "zh"]
    assert found["zh"]["bytes"] == len(SAMPLE[2].encode())
    assert found["en"]["tokens"] == len(encoder.encode(SAMPLE[0])) + len(encoder.encode(SAMPLE[1]))
    assert found["zh"]["bytes_per_token"] == found["zh"]["bytes"] / found["zh"]["tokens"]
    assert found["none"]["bytes_per_token"] is None


def test_sentencepiece_models_are_read(tmp_path):
    import io

    import sentencepiece

    stored = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE), model_writer=stored, vocab_size=200, hard_vocab_limit=False,
        byte_fallback=False, minloglevel=2,
    )  # fmt: skip
    path = tmp_path / "tokenizer.model"
    path.write_bytes(stored.getvalue())
    encoder = load_encoder(path)
    assert isinstance(encoder, PieceEncoder) and encoder.end == 2
    theirs = sentencepiece.SentencePieceProcessor(model_proto=stored.getvalue())
    for text in SAMPLE:
        assert encoder.encode(text).tolist() == theirs.encode(text)
    assert encoder.content() == stored.getvalue()
    path.write_bytes(b"no model")
    with pytest.raises(ModelwrightError, match="no sentencepiece model"):
        load_encoder(path)


def test_files_that_are_no_tokenizers(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelwrightError, match="cannot be read"):
        load_encoder(path)
    for content in (b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'):
        path.write_bytes(content)
        with pytest.raises(ModelwrightError, match=r"give its tokenizer\.json"):
            load_encoder(path)


def test_the_fingerprint_is_of_the_content_not_of_its_layout(tmp_path):
    made = trained()
    (tmp_path / "a.json").write_text(made.to_str())
    (tmp_path / "b.json").write_text(json.dumps(json.loads(made.to_str()), indent=3))
    one, two = (load_encoder(tmp_path / n) for n in ("a.json", "b.json"))
    assert one.fingerprint == two.fingerprint and len(one.fingerprint) == 16
    assert TextEncoder(trained(vocabulary=300)).fingerprint != one.fingerprint


def test_a_users_tokenizer_becomes_the_codec_of_a_recipe(tmp_path):
    made = train_tokenizer(SAMPLE, vocabulary=500)
    document = json.loads(made.to_str())
    stranger = Tokenizer.from_str(json.dumps(document | {"added_tokens": []}))
    stranger.add_special_tokens([AddedToken("<｜begin｜>", special=True)])
    (tmp_path / "tokenizer.json").write_text(stranger.to_str())
    examples = [Example((text_turn("document", "x", learn=True),))]
    codec = Codec.fit(examples, tokenizer=str(tmp_path / "tokenizer.json"))
    again = load_codec(save_codec(codec))
    for text in [*SAMPLE, "<|end|> typed <｜begin｜> by a user"]:
        ids = codec.tokens(text)
        assert codec.text(ids) == text
        assert again.tokens(text) == ids
        assert not codec.special & set(ids)
    assert codec.end == again.end and len(codec.token_bytes) == codec.vocabulary


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    made = trained()
    document = json.loads(made.to_str()) | {"normalizer": {"type": "Lowercase"}}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ModelwrightError, match="does not give the text"):
        Codec.of_file(path)
    words = Tokenizer(models.WordLevel({"a": 0, "字": 1}, unk_token="a"))  # noqa: S106
    path.write_text(words.to_str())
    with pytest.raises(ModelwrightError, match="not made of bytes"):
        Codec.of_file(path)


def test_the_layout_is_added_once():
    made = with_layout(train_tokenizer(SAMPLE, vocabulary=300))
    size = made.get_vocab_size()
    assert with_layout(made).get_vocab_size() == size


def test_without_tiktoken_the_library_does_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.setattr(bpe, "native", lambda: False)
    encoder = TextEncoder(trained())
    assert not encoder.hurry() and "modelwright[data]" in encoder.slow_because
    assert np.array_equal(encoder.encode(SAMPLE[2]), trained().encode(SAMPLE[2]).ids)


def test_it_hurries_by_itself_once_there_is_much_to_do():
    encoder = TextEncoder(trained())
    encoder.encode("short")
    assert encoder._fast is None
    encoder.encode(SAMPLE[0] * 1000)
    assert encoder._fast is not None
