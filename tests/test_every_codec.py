"""What every codec promises. A new file in data/codecs/ is found here by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from modelwright.data.codecs import fit_codec, kinds, load_codec, save_codec
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.extensions import short
from modelwright.tasks.task import names, task_class
from modelwright.types import Codec, Encoded, Example, stack
from tests.own_code import CODECS, TASKS
from tests.variations import examples_of, varied

every_codec = pytest.mark.parametrize("kind", [*kinds(), *CODECS], ids=short)


def examples_for(kind: str) -> list[Example]:
    """Examples of the first task that uses this codec."""
    task = next((n for n in [*names(), *TASKS] if task_class(n).codec == kind), None)
    assert task, f"no task uses the codec {kind}"
    return examples_of(task)[1]


def same(one: Encoded, other: Encoded) -> bool:
    return list(one) == list(other) and all(
        np.asarray(one[k]).dtype == np.asarray(other[k]).dtype and np.array_equal(one[k], other[k])
        for k in one
    )


def same_tensors(one: Codec, other: Codec, examples: list[Example]) -> bool:
    columns = stack([one.encode(e) for e in examples], one.ragged)
    left, right = one.tensors(columns), other.tensors(columns)
    return list(left) == list(right) and all(left[k].equal(right[k]) for k in left)


@every_codec
def test_a_saved_codec_does_exactly_the_same(kind: str) -> None:
    examples = examples_for(kind)
    codec = fit_codec(kind, examples, {})
    again = load_codec(save_codec(codec))
    assert type(again) is type(codec)
    assert all(same(codec.encode(e), again.encode(e)) for e in examples)
    assert same_tensors(codec, again, examples)
    assert save_codec(again) == save_codec(codec)


@every_codec
def test_the_files_are_json_or_safetensors(kind: str) -> None:
    for name, content in save_codec(fit_codec(kind, examples_for(kind), {})).items():
        assert isinstance(content, bytes)
        assert name.endswith((".json", ".safetensors"))
        if name.endswith(".json"):
            json.loads(content)


@every_codec
def test_what_is_fitted_sees_the_given_examples_only(kind: str) -> None:
    train, others = examples_for(kind), [varied(e, 77) for e in examples_for(kind)]
    alone = save_codec(fit_codec(kind, train, {}))
    codec = fit_codec(kind, iter(train), {})
    for example in others[::2]:
        codec.encode(example)  # looking at other data teaches it nothing
    assert save_codec(codec) == alone
    assert save_codec(fit_codec(kind, train[:4], {})) == save_codec(
        fit_codec(kind, iter(train[:4]), {})
    )


@every_codec
def test_an_example_is_encoded_alike_alone_and_beside_others(kind: str) -> None:
    examples = examples_for(kind)
    codec = fit_codec(kind, examples, {})
    alone = [codec.encode(e) for e in examples]
    backwards = [codec.encode(e) for e in reversed(examples)][::-1]
    assert all(same(a, b) for a, b in zip(alone, backwards, strict=True))


@every_codec
def test_fields_that_vary_in_length_are_declared(kind: str) -> None:
    codec = fit_codec(kind, examples_for(kind), {})
    encoded = [codec.encode(e) for e in examples_for(kind)]
    for field in encoded[0]:
        shapes = {np.shape(e[field]) for e in encoded}
        assert field in codec.ragged or len(shapes) == 1


@every_codec
def test_a_question_without_an_answer_can_be_encoded(kind: str) -> None:
    examples = examples_for(kind)
    codec = fit_codec(kind, examples, {})
    given = [t for t in examples[0].turns if not t.learn]
    encoded = codec.encode(Example(tuple(given) or examples[0].turns))
    assert list(encoded) == list(codec.encode(examples[0]))
    assert codec.tensors(stack([encoded], codec.ragged))


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelwrightError, match=r"no codec 'vector' \(did you mean 'vectors'\?\)"):
        fit_codec("vector", [], {})


def test_a_checkpoint_without_its_codec_is_corrupt() -> None:
    with pytest.raises(CorruptError, match=r"codec/kind\.json is missing"):
        load_codec({})


@every_codec
def test_an_encoded_example_can_be_read_back(kind: str) -> None:
    examples = examples_for(kind)
    codec = fit_codec(kind, examples, {})
    for example in examples:
        encoded = codec.encode(example)
        again = codec.example(encoded)
        assert same(codec.encode(again), encoded)
        assert [t.learn for t in again.turns] == [t.learn for t in example.turns]
        assert [t.role for t in again.turns] == [t.role for t in example.turns]


@every_codec
def test_what_an_export_does_with_numbers_is_what_training_does(kind: str) -> None:
    examples = examples_for(kind)
    codec = fit_codec(kind, examples, {})
    if not hasattr(codec, "front"):
        pytest.skip("makes no inputs of numbers alone")
    front = codec.front()
    for example in examples:
        raw = front.raw(example)
        assert [(n, str(a.dtype)) for n, a in raw.items()] == [
            (i.name, str(i.dtype).removeprefix("torch.")) for i in front.reads
        ]
        found = front(*(torch.from_numpy(np.array(a)) for a in raw.values()))
        meant = codec.tensors(stack([codec.encode(example)], codec.ragged))
        assert all(found[name].equal(meant[name]) for name in found)
        assert set(found) == set(meant) - {"label", *getattr(codec, "targets", ())}
