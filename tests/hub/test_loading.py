"""Published weights are read strictly, as they are, and with little memory beside them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.decoder import config_to, layout
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.hub.names import Entry
from modelwright.hub.tensors import Reader, table
from modelwright.hub.writing import write
from modelwright.models.decoder import Config
from tests.hub import small

TOKENS = torch.arange(60).view(2, 30) * 5 % small.VOCABULARY


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return folder, small.gpt2(folder)


@pytest.fixture
def folder(saved, tmp_path):
    import shutil

    return shutil.copytree(saved[0], tmp_path / "gpt2")


def refused(folder, why, **options):
    with pytest.raises(ModelwrightError, match=why) as error:
        load(find(str(folder)), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_same_answers_as_theirs(saved):
    folder, theirs = saved
    ours = load(find(str(folder)))
    assert not ours.model.training and ours.fresh == ()
    with torch.no_grad():
        assert (ours.model(TOKENS) - theirs(TOKENS).logits).abs().max() < 1e-4


def test_shards_are_one(saved, tmp_path):
    folder, theirs = saved
    small.quietly(theirs.save_pretrained, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours, whole = load(find(str(tmp_path))), load(find(str(folder)))
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(ours.model.state_dict()[name])
    first = min(tmp_path.glob("*.safetensors"))
    first.unlink()
    refused(tmp_path, f"{first.name} is missing")


def test_shards_of_another_checkpoint(saved, tmp_path):
    small.quietly(saved[1].save_pretrained, tmp_path, max_shard_size="50KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CorruptError, match="fetch all"):
        load(find(str(tmp_path)))


def test_a_missing_tensor(folder):
    small.edit_weights(folder, lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"))
    refused(folder, "mlp.c_fc.bias is not there.*incomplete")


def test_an_unexpected_tensor(folder):
    small.edit_weights(folder, lambda t: t.update({"adapter.weight": torch.zeros(2)}))
    refused(folder, "adapter.weight is in the file and unknown")


def test_another_shape_names_the_tensor_and_both(folder):
    def wider(tensors):
        tensors["transformer.wpe.weight"] = torch.zeros(64, 32)

    small.edit_weights(folder, wider)
    refused(folder, r"wpe.weight has the shape \[64, 32\], \[128, 32\] is meant for position")


def head_of(tensors, rows):
    tensors["lm_head.weight"] = torch.zeros(rows, 32)


def test_a_head_of_another_size_can_be_replaced(folder):
    small.edit_config(folder, tie_word_embeddings=False)
    small.edit_weights(folder, lambda t: head_of(t, 7))
    refused(folder, r"lm_head.weight has the shape \[7, 32\].*head: new")
    loaded = load(find(str(folder)), new_head=True)
    assert loaded.fresh == ("output.weight",) and loaded.passed == ("lm_head.weight",)
    assert loaded.model.output.weight.detach().any()


def test_a_head_that_is_not_there(folder):
    small.edit_config(folder, tie_word_embeddings=False)
    refused(folder, "lm_head.weight is not there.*no such head.*head: new")
    assert load(find(str(folder)), new_head=True).fresh == ("output.weight",)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_types_are_kept_or_chosen(folder, stored):
    small.edit_weights(folder, lambda t: t.update({k: v.to(stored) for k, v in t.items()}))
    kept = load(find(str(folder)))
    assert {p.dtype for p in kept.model.parameters()} == {stored}
    chosen = load(find(str(folder)), dtype=torch.float32)
    assert {p.dtype for p in chosen.model.parameters()} == {torch.float32}
    for one, other in zip(kept.model.parameters(), chosen.model.parameters(), strict=True):
        assert one.float().equal(other)


def test_tied_weights_stay_one(tmp_path):
    import modelwright.hub.decoder as family

    config = Config(**{**Config.specimen, "tied": True})
    write(tmp_path, config.build(), config, family)
    model = load(find(str(tmp_path)), dtype=torch.bfloat16).model
    assert model.output.weight is model.embedding.weight


def test_tables_of_positions_have_their_values(tmp_path):
    config = Config(**Config.specimen)
    torch.manual_seed(0)
    model = config.build().eval()
    import modelwright.hub.decoder as family

    write(tmp_path, model, config, family)
    again = load(find(str(tmp_path)))
    tokens = TOKENS % 300
    with torch.no_grad():
        assert again.model(tokens).equal(model(tokens))
    for name, buffer in model.named_buffers():
        assert buffer.equal(dict(again.model.named_buffers())[name])
    assert {e.ours for e in layout(config).entries} == set(model.state_dict())
    assert config_to(config)["model_type"] == "modelwright-decoder"


def test_parts_offsets_and_odd_headers(tmp_path):
    """A joined tensor is cut where it is meant to be, whatever the chunks and the alignment."""
    from modelwright.hub import loading

    whole = torch.arange(60, dtype=torch.float32).view(12, 5)
    save_file({"x": whole, "scalar": torch.tensor(3.0)}, tmp_path / "a.safetensors", {"k": "abc"})
    stored = table(tmp_path / "a.safetensors")
    model = torch.nn.Linear(5, 4, bias=False)
    plan = loading.Plan(((Entry("weight", "x", part=(4, 4), offset=1.0), stored["x"]),), (), ())
    loading.fill(model, plan)
    assert model.weight.detach().equal(whole[4:8] + 1)
    across = torch.nn.Linear(3, 12, bias=False)
    entry = Entry("weight", "x", part=(1, 3), axis=1)
    loading.fill(across, loading.Plan(((entry, stored["x"]),), (), ()))
    assert across.weight.detach().equal(whole[:, 1:4])


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    name=st.text(st.characters(codec="ascii", exclude_characters='"\\'), min_size=1, max_size=9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
    chunk=st.integers(1, 64),
)
def test_any_tensor_is_read_as_it_was_written(tmp_path_factory, shape, name, dtype, chunk):
    import modelwright.hub.tensors as module

    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    tensor = (torch.arange(1, 1 + max(1, torch.Size(shape).numel())) * 3 % 7).to(dtype)
    tensor = tensor[: torch.Size(shape).numel()].view(shape)
    save_file({name: tensor, "other": torch.zeros(3, dtype=torch.uint8)}, path)
    found, before = torch.empty(shape, dtype=dtype), module.CHUNK
    module.CHUNK = chunk

    def put(first, rows):
        if found.ndim and found.numel():
            found[first : first + len(rows)] = rows
        elif found.numel():
            found.copy_(rows)

    try:
        with Reader() as reader:
            reader.rows(table(path)[name], put)
    finally:
        module.CHUNK = before
    assert found.equal(tensor)


PEAK = """
import sys, torch
from modelwright.hub.files import find
from modelwright.hub.loading import load
def resident(field):
    with open("/proc/self/status") as lines:
        return next(int(l.split()[1]) * 1024 for l in lines if l.startswith(field))
small, large = sys.argv[1:]
load(find(small))  # what the first loading imports and compiles
torch.set_num_threads(1)
before = resident("VmRSS")
loaded = load(find(large))
size = sum(p.numel() * p.itemsize for p in loaded.model.parameters())
print((resident("VmHWM") - before) / size, size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_peak_is_at_most_1_3_times_the_weights(tmp_path, stored):
    import modelwright.hub.decoder as family

    for name, width in (("small", 64), ("large", 512)):
        config = Config(vocabulary=8192, depth=8, width=width, heads=4, kv_heads=4)
        (tmp_path / name).mkdir()
        with torch.device("meta"):
            model = config.build()
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 0.5)
        write(tmp_path / name, model, config, family, dtype=stored)
        del model
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ratio, size = map(float, done.stdout.split())
    assert size > 60e6 and ratio <= 1.3, (ratio, size)
