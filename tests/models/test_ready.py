"""Models made ready to answer: the answers of the trained model, from all blocks in one call."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.data.codecs import fit_codec
from modelwright.kernels import encoder
from modelwright.models import bert
from modelwright.models import encoder as family_without
from modelwright.models.quantized import PackedLinear, quantize
from modelwright.models.ready import ready
from modelwright.objectives import make_objective
from modelwright.pipeline.answering.predicting import Predicting
from tests.variations import examples_of

needs_kernel = pytest.mark.skipif(not encoder.available(), reason="needs AVX-512 BF16 and VNNI")
KINDS = ("float32", "bfloat16", "int8")
# How far the stream may be from that of the modules, which round at other places.
NEAR = {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.06}


def _filled(config: bert.Config, kind: str = "float32") -> bert.Bert:
    """A model of which no part is zero and no two rows are alike."""
    torch.manual_seed(3)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if kind != "float32":
        quantize(model, kind)
    return model


def _made_ready(model: nn.Module) -> Any:
    other = copy.deepcopy(model)
    ready(other)
    return other


def _shape(width: int = 64, **given: Any) -> bert.Config:
    return bert.Config(vocabulary=50, depth=2, width=width, heads=2, **given)


def _documents(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randint(50, (int(starts[-1]),), generator=drawn), starts


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.integers(1, 40) | st.sampled_from([96, 97, 200, 290]), max_size=6, min_size=1
    ),
    heads=st.sampled_from([1, 2, 3]),
    hidden=st.sampled_from([32, 160, 1600]),
    kind=st.sampled_from(KINDS),
    function=st.sampled_from(sorted(encoder.ACTIVATIONS)),
)
def test_the_stream_is_that_of_the_modules(
    lengths: list[int], heads: int, hidden: int, kind: str, function: str
) -> None:
    config = bert.Config(
        vocabulary=50,
        depth=2,
        width=32 * heads,
        heads=heads,
        hidden=hidden,
        activation=function,
        head="none",
    )
    model = _filled(config, kind)
    quick = _made_ready(model)
    assert quick.in_one_call is not None
    tokens, starts = _documents(lengths, seed=hidden)
    with torch.inference_mode():
        slow, fast = model(tokens, starts), quick(tokens, starts)
        assert slow.shape == fast.shape
        assert float((slow - fast).abs().max()) <= NEAR[kind] * float(slow.abs().max())
        firsts = quick._first(tokens, starts, None)
        assert torch.equal(firsts, fast[starts[:-1]])
        at = len(lengths) // 2
        here = slice(int(starts[at]), int(starts[at + 1]))
        alone = quick(tokens[here], torch.tensor([0, lengths[at]]))
        assert torch.equal(alone, fast[here])


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_threads(kind: str) -> None:
    """A classifier's logits, token types among its inputs, by one thread and by two."""
    model = _filled(_shape(128, classes=3), kind)
    quick = _made_ready(model)
    tokens, starts = _documents([7, 130, 1, 64, 300, 12])
    types = tokens % 2
    threads = torch.get_num_threads()
    found = []
    with torch.inference_mode():
        for count in (1, 2):
            torch.set_num_threads(count)
            try:
                embedded = quick._embedded(tokens, starts, types)
                found.append(quick.in_one_call.run(embedded, starts, only_first=True))
            finally:
                torch.set_num_threads(threads)
        expected, logits = model(tokens, starts, types), quick(tokens, starts, types)
    assert torch.equal(found[0], found[1])
    near = NEAR[kind] * float(expected.abs().max())
    assert float((logits - expected).abs().max()) <= near
    assert logits.shape == (6, 3)


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", sorted(encoder.ACTIVATIONS))
def test_a_nan_reaches_its_document_alone(kind: str, function: str) -> None:
    """In a row of the embedding; one in a bias reaches all."""
    model = _filled(_shape(head="none", activation=function), kind)
    tokens, starts = torch.tensor([1, 2, 3, 7, 4]), torch.tensor([0, 3, 5])
    with torch.inference_mode():
        model.embedding.weight[7] = float("nan")
        found = _made_ready(model)(tokens, starts).isnan()
        assert bool(found[3:].all()) and not bool(found[:3].any())
        cast(Any, model.blocks[0]).feed_forward.up.bias[3] = float("nan")
        assert bool(_made_ready(model)(tokens, starts).isnan().all())


@needs_kernel
def test_float32_is_packed_once_and_nothing_is_lost() -> None:
    model: Any = _filled(_shape())
    quick = _made_ready(model)
    made = quick.blocks[0].feed_forward.up
    assert isinstance(made, PackedLinear)
    assert torch.equal(made.weight, model.blocks[0].feed_forward.up.weight)
    x = torch.randn(5, 64)
    assert torch.allclose(made(x), model.blocks[0].feed_forward.up(x), atol=1e-6)
    tokens, starts = _documents([5, 9])
    with torch.inference_mode():
        before = quick(tokens, starts)
        ready(quick)  # again: the same matrices
        assert torch.equal(quick(tokens, starts), before)


def test_what_has_no_kernel_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other widths, int4, a model in training, one of another family, a machine without it."""
    odd = _made_ready(_filled(bert.Config(vocabulary=50, depth=1, width=48, heads=2)))
    four = _made_ready(_filled(_shape(), "int4"))
    training = _made_ready(_filled(_shape()).train())
    assert odd.in_one_call is None and four.in_one_call is None and training.in_one_call is None
    assert type(odd.blocks[0].attention.query) is nn.Linear
    ready(family_without.Config(**family_without.Config.specimen).build().eval())
    monkeypatch.setattr(encoder, "available", lambda: False)
    model = _filled(_shape())
    without = _made_ready(model)
    assert without.in_one_call is None
    tokens, starts = _documents([3, 8])
    with torch.inference_mode():
        assert torch.equal(without(tokens, starts), model(tokens, starts))


@needs_kernel
def test_bounds_that_do_not_fit_are_refused() -> None:
    quick = _made_ready(_filled(_shape()))
    assert quick.in_one_call is not None
    x = torch.zeros(6, 64)
    for starts in ([0, 3, 3, 6], [0, 7], [1, 6], [0, 5]):
        with pytest.raises(ValueError, match="starts"):
            quick.in_one_call.run(x, torch.tensor(starts))
    with pytest.raises(ValueError, match="stream"):
        quick.in_one_call.run(x.bfloat16(), torch.tensor([0, 6]))


@needs_kernel
def test_a_server_answers_as_the_trained_model() -> None:
    task, examples = examples_of("text_classification", 12)
    codec = fit_codec(task.codec, examples, {})
    fields = bert.Config.data_fields(codec) | {"depth": 2, "width": 64, "heads": 2}
    model = _filled(bert.Config(**fields))
    policy = Predicting(model, codec, make_objective(task.objective, codec, {}), task)
    asked = [example.given for example in examples]
    before = policy.detailed(asked)
    policy.server()
    assert model.in_one_call is not None
    for one, other in zip(before, policy.detailed(asked), strict=True):
        assert one.turn == other.turn
        assert other.details["probabilities"] == pytest.approx(
            one.details["probabilities"], abs=1e-5
        )
