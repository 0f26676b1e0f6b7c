"""The codec of pairs: framing, cutting on both sides, prefixes, questions, published tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from modelwright.data.codecs import load_codec, save_codec
from modelwright.data.codecs.published_text import Codec as Published
from modelwright.data.codecs.text_pairs import Codec
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Shortened, text_turn


def pair(source: str, target: str | None = None) -> Example:
    given = text_turn("user", source)
    if target is None:
        return Example((given,))
    return Example((given, text_turn("assistant", target, learn=True)))


TRAIN = [pair("ein kleiner Hund", "a small dog"), pair("eine Katze", "a cat")]
CODEC = Codec.fit(TRAIN, vocabulary=270, longest=24)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts, texts)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_pair_is_framed_and_read_back(source: str, target: str) -> None:
    encoded = CODEC.encode(pair(source, target))
    tokens, read = encoded["tokens"].tolist(), encoded["source"].tolist()
    assert tokens[0] == CODEC.start and tokens[-1] == CODEC.end and read[-1] == CODEC.end
    assert len(tokens) - 1 <= CODEC.longest and len(read) <= CODEC.longest
    again = CODEC.example(encoded)
    for turn, text in zip(again.turns, (source, target), strict=True):
        whole = len(CODEC.text.tokens(text)) < CODEC.longest
        assert text.startswith(turn.text) or not whole
        assert turn.text == text or not whole
    if len(CODEC.text.tokens(source)) < CODEC.longest:
        assert CODEC.prompt(pair(source).turns) == read


def test_what_is_cut_is_marked() -> None:
    codec = load_codec(save_codec(CODEC))
    assert isinstance(codec, Codec)
    long = "x y z " * 20
    assert not isinstance(codec.encode(pair("kurz", "short")), Shortened)
    for source, target in ((long, "short"), ("kurz", long), (long, long)):
        assert isinstance(codec.encode(pair(source, target)), Shortened)
    assert len(codec.prompt([text_turn("user", long)])) > codec.longest  # what serves must refuse


def test_a_prefix_is_read_by_the_encoder_alone_and_everywhere() -> None:
    codec = Codec.fit(TRAIN, vocabulary=270, prefix="translate: ")
    codec = load_codec(save_codec(codec))
    assert isinstance(codec, Codec)
    encoded = codec.encode(pair("ein Hund", "a dog"))
    assert codec.text.text(encoded["source"].tolist()) == "translate: ein Hund"
    assert codec.text.text(codec.prompt([text_turn("user", "ein Hund")])) == "translate: ein Hund"
    assert codec.example(encoded) == pair("ein Hund", "a dog")


def test_the_last_thing_given_is_the_source() -> None:
    said = [
        text_turn("system", "be kind"),
        text_turn("user", "eins"),
        text_turn("assistant", "one"),
    ]
    assert CODEC.prompt([*said, text_turn("user", "zwei")]) == CODEC.prompt(
        [text_turn("user", "zwei")]
    )
    assert CODEC.prompt([text_turn("document", "zwei")]) == CODEC.prompt(
        [text_turn("user", "zwei")]
    )


@pytest.mark.parametrize(
    ("example", "why"),
    [
        (Example((text_turn("assistant", "a", learn=True),)), "no text is given"),
        (Example((*pair("a", "b").turns, *pair("a", "b").turns)), "2 turns to learn, one is meant"),
    ],
)
def test_what_is_no_pair_is_refused(example: Example, why: str) -> None:
    with pytest.raises(ModelwrightError, match=why):
        CODEC.encode(example)


def test_no_room_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="leaves no room"):
        Codec.fit(TRAIN, vocabulary=270, longest=1)


def sentencepiece(before: list[str]) -> Published:
    """A tokenizer as T5's: pieces with their leading space, </s> after every text."""
    control = ["<pad>", "</s>", "<unk>", "<s>"]
    pieces = [(t, 0.0) for t in control] + [
        (p, -float(i)) for i, p in enumerate(["\u2581a", "\u2581dog", "\u2581", *"adgo"])
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(control)
    frame = [*before, "$A", "</s>"]
    made.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[(t, control.index(t)) for t in ("</s>", "<s>")]
    )
    facts = {"vocabulary": 11, "ends": [1], "template": None, "tokens": {}, "settings": {}}
    return Published(made.to_str().encode(), facts)


@pytest.mark.parametrize("before", [[], ["<s>"]], ids=["t5", "bart"])
def test_a_published_tokenizer_frames_both_sides_as_its_model_is_used_to(before: list[str]) -> None:
    inner = sentencepiece(before)
    codec = Codec.around(inner, start=0, padding=0, longest=8)
    again = load_codec(save_codec(codec))
    assert isinstance(again, Codec)
    for one in (codec, again):
        encoded = one.encode(pair("a dog", "dog a"))
        first = [3] if before else []
        assert encoded["source"].tolist() == [*first, 4, 5, 1]
        assert encoded["tokens"].tolist() == [0, *first, 5, 4, 1]
        assert one.opening == [0, *first]
        assert one.special == {1}, "its other special tokens end nothing"
        assert one.spaced and not CODEC.spaced
        assert one.example(encoded) == pair("a dog", "dog a")


def test_one_tokenizer_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(CODEC.save()["tokenizer.json"])
    codec = Codec.fit([], tokenizer=str(path))
    assert codec.encode(TRAIN[0])["tokens"].tolist() == CODEC.encode(TRAIN[0])["tokens"].tolist()
    assert json.loads(codec.save()["text_pairs.json"])["longest"] == 256
