"""Low-rank adapters: the formulas, what is frozen, merging and unmerging, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models import lora
from modelwright.models.lora import Adapter
from modelwright.models.model import config_class, families

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}


def net():
    torch.manual_seed(3)
    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(11, 6),
            "blocks": nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 4, bias=False)]),
            "conv": nn.Conv2d(3, 5, 3, stride=2, padding=1),
            "sound": nn.Conv1d(3, 5, 4, stride=2, padding=1),
            "apart": nn.Conv1d(4, 4, 3, groups=4),
            "head": nn.Linear(4, 2),
        }
    )


def moved(model):
    """Adapters that do something: B is drawn, and m is not the norm."""
    for _, layer in lora.layers(model):
        nn.init.normal_(layer.lora_b, std=0.3)
        if layer.magnitude is not None:
            with torch.no_grad():
                layer.magnitude.mul_(1.3)
    return model


def inputs(layer):
    if isinstance(layer, nn.Embedding):
        return torch.tensor([[1, 4], [10, 0]])
    if isinstance(layer, nn.Conv1d):
        return torch.randn(2, 3, 9)
    return torch.randn(2, 3, 7, 7) if isinstance(layer, nn.Conv2d) else torch.randn(5, 6)


@pytest.mark.parametrize(
    ("kind", "target"),
    [(kind, target) for kind in KINDS for target in ("blocks.0", "conv", "sound")]
    + [("lora", "embedding"), ("rslora", "embedding")],
)
def test_the_layer_computes_the_formula(kind, target):
    model, adapter = net(), Adapter(rank=2, alpha=3.0, targets=[target], **KINDS[kind])
    plain = copy.deepcopy(model.get_submodule(target))
    x = inputs(plain)
    assert lora.adapt(model, adapter) == [target]
    layer = model.get_submodule(target)
    # W' = W at first: exactly, but that DoRA multiplies by a quotient
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-6, atol=1e-6)
    moved(model)
    scaling = 3.0 / 2 if kind != "rslora" else 3.0 / 2**0.5
    a, b = layer.lora_a.double(), layer.lora_b.double()
    delta = (b @ a).t() if target == "embedding" else (b.flatten(1) @ a.flatten(1))
    weight = plain.weight.double() + scaling * delta.reshape(plain.weight.shape)
    if kind == "dora":
        norms = weight.flatten(1).norm(dim=1)
        weight *= (layer.magnitude.double() / norms).view(-1, *[1] * (weight.ndim - 1))
    if target == "embedding":
        expected = F.embedding(x, weight)
    elif target in ("conv", "sound"):
        convolved = F.conv2d if target == "conv" else F.conv1d
        expected = convolved(x.double(), weight, plain.bias.double(), stride=2, padding=1)
    else:
        expected = F.linear(x.double(), weight, plain.bias.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.double(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_live_and_unmerged_is_the_base_bit_by_bit(kind):
    model = net()
    adapter = Adapter(rank=2, targets=["blocks.0", "conv", "sound"], **KINDS[kind])
    lora.adapt(model, adapter)
    moved(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    layer, x = model["conv"], torch.randn(2, 3, 7, 7)
    live = layer(x)
    lora.merge(model)
    lora.merge(model)  # twice is once
    torch.testing.assert_close(layer(x), live, rtol=1e-5, atol=1e-5)
    assert not torch.equal(model.state_dict()["conv.weight"], before["conv.weight"])
    lora.unmerge(model)
    lora.unmerge(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    lora.fold(model)
    assert type(model["conv"]) is nn.Conv2d and set(model.state_dict()) == set(net().state_dict())
    torch.testing.assert_close(model["conv"](x), live, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_has_a_gradient(kind):
    model = net()
    lora.adapt(model, Adapter(rank=2, trained=["head"], **KINDS[kind]))
    moved(model)
    y = model["head"](model["blocks"][1](model["blocks"][0](torch.randn(3, 6)).relu()))
    y.square().sum().backward()
    given = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    parts = ["lora_a", "lora_b", *(["magnitude"] if kind == "dora" else [])]
    assert given == {f"blocks.{i}.{p}" for i in (0, 1) for p in parts} | {
        "head.weight",
        "head.bias",
    }
    assert set(lora.adapter_names(model, ["head"])) == given


def test_a_weight_read_by_itself_has_the_adapter_and_its_gradient():
    model = net()
    lora.adapt(model, Adapter(rank=2, targets=["blocks.0"]))
    moved(model)
    F.linear(torch.randn(2, 6), model["blocks"][0].weight).sum().backward()
    assert model["blocks"][0].lora_a.grad.any()


def test_the_fingerprint_is_that_of_the_base():
    plain, model = net(), net()
    lora.adapt(model, Adapter(rank=2, trained=["head.*"]))
    alone = lora.base_fingerprint(model, ["head.*"])
    moved(model)
    nn.init.ones_(model["head"].weight)
    assert lora.base_fingerprint(model, ["head.*"]) == alone
    assert lora.base_fingerprint(plain, ["head.*"]) == alone
    with torch.no_grad():
        plain["blocks"][0].weight[0, 0] += 1e-6
    assert lora.base_fingerprint(plain, ["head.*"]) != alone


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        (Adapter(targets=["blocs.0"]), "did you mean 'blocks.0'"),
        (Adapter(targets=["apart"]), r"apart is no linear layer.*trained=\[apart\] trains it"),
        (Adapter(trained=["tail"]), "'tail' means nothing here"),
        (Adapter(targets=["embedding"], dora=True), "dora: not for the embedding"),
        (Adapter(targets=["head"], trained=["head"]), "has an adapter already"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(adapter, why):
    with pytest.raises(ModelwrightError, match=why):
        lora.adapt(net(), adapter)


def test_a_shared_weight_is_refused():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "out": nn.Linear(4, 5, bias=False)})
    model["out"].weight = model["embedding"].weight
    with pytest.raises(ModelwrightError, match="shares its weight with embedding"):
        lora.adapt(model, Adapter(targets=["out"]))


def test_tensors_of_another_adapter_are_refused():
    model = net()
    lora.adapt(model, Adapter(rank=2, targets=["blocks.0"]))
    tensors = {n: model.state_dict()[n] for n in lora.adapter_names(model, [])}
    with pytest.raises(CorruptError, match="another shape"):
        short = {n: t[:1] for n, t in tensors.items()}
        lora.load_adapter(model, short, [], "here")
    with pytest.raises(CorruptError, match=r"blocks\.0\.lora_b"):
        lora.load_adapter(model, {n: t for n, t in tensors.items() if "_b" not in n}, [], "here")


@pytest.mark.parametrize("family", [f for f in families() if f not in ("adapted", "keras")])
def test_every_family_takes_adapters_in_its_usual_layers(family):
    cls = config_class(family)
    model = cls(**cls.specimen).build()
    before = dict(model.state_dict())
    if not any(isinstance(m, nn.Linear | nn.Conv2d) for m in model.modules()):
        return
    found = lora.adapt(model, Adapter(rank=2))
    assert found
    lora.fold(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[n], before[n]) for n in before)


@pytest.mark.parametrize("family", ["decoder", "llama", "encoder"])
def test_what_attention_reads_of_the_values_is_adapted_as_the_rest_is(family):
    cls = config_class(family)
    model = cls(**cls.specimen).build()
    found = {n.rpartition(".")[2] for n in lora.adapt(model, Adapter(rank=2))}
    assert {"query", "key", "value", "out"} <= found
    assert "output" not in found and "head" not in found
