"""Checkpoints: what goes in comes out, bit for bit; what cannot be stored is refused by name."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from modelwright import checkpoint
from modelwright.checkpoint.layout import (
    DTYPES,
    FileRecord,
    GroupRecord,
    Manifest,
    TensorRecord,
    seal,
    sha256,
)
from modelwright.errors import CorruptError, MachineError, ModelwrightError


def bits(tensor: Tensor) -> bytes:
    plain = tensor.clone(memory_format=torch.contiguous_format)  # contiguous() may keep strides
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(left: Tensor, right: Tensor) -> None:
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert bits(left) == bits(right)


def complete(folder: Path) -> list[str]:
    return sorted(p.parent.name for p in folder.glob("*/COMPLETE"))


@st.composite
def named_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of random bytes: every type, 0 to 3 dimensions, empty, transposed, strided."""
    named: dict[str, Tensor] = {}
    letters = st.characters(categories=["L", "N", "P"])
    names = st.text(letters, min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
    for name in draw(st.lists(names, max_size=5, unique=True)):
        dtype = draw(st.sampled_from(sorted(DTYPES.values(), key=str)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = math.prod(shape) * dtype.itemsize
        raw = bytearray(draw(st.binary(min_size=size, max_size=size)))
        if dtype == torch.bool:
            raw = bytearray(b & 1 for b in raw)
        flat = torch.frombuffer(raw, dtype=torch.uint8) if size else torch.empty(0).byte()
        tensor = flat.view(dtype).reshape(shape)
        if draw(st.booleans()) and tensor.dim() > 1:
            tensor = tensor.transpose(0, 1)
        if draw(st.booleans()) and tensor.dim():
            tensor = tensor[..., ::2]
        named[name] = tensor
    return named


segments = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True)
folders = st.sampled_from(["", "f/", "f/g/", "h/"])


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    groups=st.dictionaries(segments.map(lambda s: f"g-{s}"), named_tensors(), max_size=3),
    documents=st.dictionaries(
        st.tuples(folders, segments).map(lambda pair: f"{pair[0]}d-{pair[1]}"),
        st.binary(max_size=200),
        max_size=3,
    ),
    step=st.integers(0, 10**9),
)
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory,
    groups: dict[str, dict[str, Tensor]],
    documents: dict[str, bytes],
    step: int,
) -> None:
    folder = tmp_path_factory.mktemp("c") / "checkpoints"
    path = checkpoint.save(folder, step, groups, documents)
    loaded = checkpoint.load(path)
    assert checkpoint.verify(path) == []
    assert (loaded.path, loaded.step) == (path, step)
    assert loaded.documents == documents
    assert loaded.tensors.keys() == groups.keys()
    for group, named in groups.items():
        assert loaded.tensors[group].keys() == named.keys()
        for name, tensor in named.items():
            assert_same(loaded.tensors[group][name], tensor)
    shutil.rmtree(folder.parent)


def test_nan_payloads_and_negative_zero_survive(tmp_path: Path) -> None:
    words = [0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x80000000, 0x00000001, 0xFF800000]
    tensor = torch.tensor(words, dtype=torch.uint32).view(torch.float32)
    half = torch.tensor([0x7F81, 0xFFFF, 0x8000], dtype=torch.uint16).view(torch.bfloat16)
    path = checkpoint.save(tmp_path, 1, {"model": {"a": tensor, "b": half}}, {})
    loaded = checkpoint.load(path).tensors["model"]
    assert_same(loaded["a"], tensor)
    assert_same(loaded["b"], half)


def test_a_real_model_and_optimizer_continue_bit_for_bit(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
        loss = model(torch.randn(4, 5, 16)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    model, optimizer = build()
    for _ in range(3):
        step(model, optimizer)
    moments = {
        f"{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    groups = {
        "model": model.state_dict(),
        "optimizer": moments,
        "random": {"cpu": torch.get_rng_state()},
    }
    path = checkpoint.save(tmp_path, 3, groups, {})
    straight = [step(model, optimizer) for _ in range(3)]

    resumed, other = build()
    loaded = checkpoint.load(path).tensors
    resumed.load_state_dict(loaded["model"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in loaded["optimizer"].items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    other.load_state_dict(other.state_dict() | {"state": state})
    torch.set_rng_state(loaded["random"]["cpu"])
    assert [step(resumed, other) for _ in range(3)] == straight
    for left, right in zip(model.parameters(), resumed.parameters(), strict=True):
        assert_same(left.detach(), right.detach())


def test_the_files_are_plain_safetensors(tmp_path: Path) -> None:
    named = {"w": torch.randn(3, 5), "n": torch.tensor(7), "h": torch.randn(2).half()}
    path = checkpoint.save(tmp_path, 1, {"model": named, "empty": {}}, {})
    other = load_file(path / "model.safetensors")
    assert other.keys() == named.keys()
    for name, tensor in named.items():
        assert_same(other[name], tensor)
    assert load_file(path / "empty.safetensors") == {}


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(64, 32))
    named = {"embed": weight, "head": weight, "turned": weight.t(), "row": weight[3]}
    path = checkpoint.save(tmp_path, 1, {"model": named}, {})
    loaded = checkpoint.load(path).tensors["model"]
    assert loaded["embed"] is loaded["head"]
    for name, tensor in named.items():
        assert_same(loaded[name], tensor.detach())
    loaded["row"].zero_()  # a view comes back as its own memory
    assert_same(loaded["embed"], weight.detach())
    stored = load_file(path / "model.safetensors")
    assert stored.keys() == {"embed", "turned", "row"}


def test_only_the_groups_asked_for_are_kept_but_all_are_verified(tmp_path: Path) -> None:
    groups = {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.ones(4)}}
    path = checkpoint.save(tmp_path, 1, groups, {"state.json": b"{}"})
    loaded = checkpoint.load(path, groups=["model"])
    assert list(loaded.tensors) == ["model"]
    assert loaded.documents == {"state.json": b"{}"}
    with pytest.raises(ModelwrightError, match=r"no group 'modle' \(did you mean 'model'\?\)"):
        checkpoint.load(path, groups=["modle"])
    damaged = bytearray((path / "optimizer.safetensors").read_bytes())
    damaged[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(damaged)
    with pytest.raises(CorruptError, match=r"optimizer\.safetensors: tensor 'm' is damaged"):
        checkpoint.load(path, groups=["model"])


def test_newest_counts_by_number_and_only_what_is_complete(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "missing") is None
    assert checkpoint.newest_sound(tmp_path / "missing") == (None, [])
    for step in (9, 100_000_000, 99_999_999):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.tensor(step)}}, {}, keep=9)
    (tmp_path / "step-200000000").mkdir()
    (tmp_path / "step-300000000").write_text("a file")
    (tmp_path / "notes").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-100000000"


def test_old_checkpoints_are_pruned_after_the_new_one_is_complete(tmp_path: Path) -> None:
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-00000005" / "model.safetensors").write_bytes(b"left by a killed save")
    (tmp_path / "mine").mkdir()
    for step in (10, 20, 30, 40):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.ones(2)}}, {}, keep=3)
    assert complete(tmp_path) == ["step-00000020", "step-00000030", "step-00000040"]
    assert not (tmp_path / "step-00000005").exists()
    assert (tmp_path / "mine").exists()
    for keep in (1, 0, -1):
        with pytest.raises(ModelwrightError, match="keep >= 2"):
            checkpoint.save(tmp_path, 50, {}, {}, keep=keep)


def test_a_passed_over_newer_checkpoint_does_not_push_out_good_ones(tmp_path: Path) -> None:
    for step in (10, 20, 90):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.ones(2)}}, {}, keep=3)
    (tmp_path / "step-00000090" / "model.safetensors").write_bytes(b"")
    found, messages = checkpoint.newest_sound(tmp_path)
    assert found is not None
    assert found.step == 20
    assert len(messages) == 1
    assert "step-00000090" in messages[0]
    assert "step-00000020" in messages[0]
    checkpoint.save(tmp_path, 30, {"model": {"w": torch.ones(2)}}, {}, keep=2)
    assert complete(tmp_path) == ["step-00000020", "step-00000030", "step-00000090"]
    # The run reaches the damaged step again: it is set aside, not mixed with and not lost.
    path = checkpoint.save(tmp_path, 90, {"model": {"w": torch.zeros(2)}}, {}, keep=2)
    assert checkpoint.verify(path) == []
    assert (tmp_path / "corrupt-step-00000090" / "COMPLETE").exists()
    assert checkpoint.newest(tmp_path) == path


def test_a_sound_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {})
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(ModelwrightError, match="never overwritten"):
        checkpoint.save(tmp_path, 1, {"model": {"w": torch.zeros(2)}}, {})
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_leftovers_of_a_killed_save_of_the_same_step_are_cleared(tmp_path: Path) -> None:
    dead = tmp_path / "step-00000001"
    dead.mkdir()
    (dead / "other.safetensors").write_bytes(b"half")
    (dead / "COMPLETE.tmp").write_bytes(b"half")
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {})
    assert sorted(p.name for p in path.iterdir()) == [
        "COMPLETE",
        "manifest.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../x", "a//x", "", ".", "..", ".hidden", "a\\x", "a\nx", "ü", "a/"],
)
def test_names_that_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    for groups, documents in (({name: {}}, {}), ({}, {name: b""})):
        with pytest.raises(ModelwrightError, match="plain relative name"):
            checkpoint.save(tmp_path / "c", 1, groups, documents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("groups", "documents"),
    [
        ([], ["manifest.json"]),
        ([], ["COMPLETE"]),
        ([], ["COMPLETE.tmp"]),
        (["model"], ["model.safetensors"]),
        ([], ["a", "a/b"]),
        (["a"], ["a.safetensors/b"]),
    ],
)
def test_names_that_collide_are_refused(
    tmp_path: Path, groups: list[str], documents: list[str]
) -> None:
    with pytest.raises(ModelwrightError, match="choose another"):
        checkpoint.save(tmp_path, 1, {g: {} for g in groups}, dict.fromkeys(documents, b""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("w", torch.zeros(2, dtype=torch.complex128)),
        ("w", torch.eye(2).to_sparse()),
        ("w", torch.empty(2, device="meta")),
        ("__metadata__", torch.zeros(1)),
        ("a\nb", torch.zeros(1)),
    ],
)
def test_tensors_that_cannot_be_stored_are_named(tmp_path: Path, name: str, tensor: Tensor) -> None:
    with pytest.raises(ModelwrightError) as caught:
        checkpoint.save(tmp_path, 1, {"model": {name: tensor}}, {})
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_conjugate_and_negative_views_are_stored_as_they_read(tmp_path: Path) -> None:
    base = torch.randn(4, dtype=torch.complex64)
    named = {"plain": base, "conjugate": base.conj(), "imaginary": base.conj().imag}
    path = checkpoint.save(tmp_path, 1, {"model": named}, {})
    loaded = checkpoint.load(path).tensors["model"]
    for name, tensor in named.items():
        assert torch.equal(loaded[name], tensor)


def reseal(path: Path, manifest: dict[str, object]) -> None:
    content = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(content)
    (path / "COMPLETE").write_bytes(seal(sha256(content)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(version=2), "version"),
        (lambda m: m.update(step=-1), "step"),
        (lambda m: m.update(more=1), "more"),
        (lambda m: m["files"].update({"../../x": m["files"]["a.txt"]}), "plain relative name"),
        (lambda m: m["groups"]["model"]["tensors"]["w"].update(dtype="F32768"), "unknown type"),
        (lambda m: m["groups"]["model"]["tensors"]["w"].update(shape=[1 << 60]), "do not fill"),
        (lambda m: m["groups"]["model"]["tensors"]["w"].update(shape=[-1, -2]), "shape"),
        (lambda m: m["groups"]["model"]["aliases"].update(v="nothing"), "'v' does not share"),
        (lambda m: m["groups"]["model"]["aliases"].update(w="w"), "'w' does not share"),
        (lambda m: m["groups"].update(ghost={"tensors": {}, "aliases": {}}), "'ghost'"),
        (lambda m: m["files"].pop("model.safetensors"), "do not fill"),
    ],
)
def test_a_forged_manifest_with_a_right_seal_is_refused(
    tmp_path: Path, change: object, says: str
) -> None:
    groups = {"model": {"w": torch.ones(2)}}
    path = checkpoint.save(tmp_path, 1, groups, {"a.txt": b"a"})
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)  # type: ignore[operator]
    reseal(path, manifest)
    with pytest.raises(CorruptError) as caught:
        checkpoint.load(path)
    assert "manifest.json: is not understood" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"null", b"\xff", b"{}"])
def test_a_manifest_that_is_not_one_is_refused(tmp_path: Path, content: bytes) -> None:
    path = checkpoint.save(tmp_path, 1, {}, {})
    (path / "manifest.json").write_bytes(content)
    (path / "COMPLETE").write_bytes(seal(sha256(content)))
    with pytest.raises(CorruptError, match=r"manifest\.json: is not understood"):
        checkpoint.load(path)


def test_an_impossible_shape_of_an_empty_tensor_is_refused(tmp_path: Path) -> None:
    record = TensorRecord(dtype="F32", shape=(0, 1 << 70), sha256=sha256(b""))
    group = GroupRecord(tensors={"w": record}, aliases={})
    file = FileRecord(bytes=group.nbytes, sha256=sha256(group.header()))
    files = {"model.safetensors": file}
    content = Manifest(step=1, files=files, groups={"model": group}).encode()
    (tmp_path / "model.safetensors").write_bytes(group.header())
    (tmp_path / "manifest.json").write_bytes(content)
    (tmp_path / "COMPLETE").write_bytes(seal(sha256(content)))
    with pytest.raises(CorruptError, match="no tensor can have the shape"):
        checkpoint.load(tmp_path)


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {"a.txt": b"a"})
    (tmp_path / "copy").write_bytes((path / "model.safetensors").read_bytes())
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(tmp_path / "copy")
    (path / "a.txt").unlink()
    os.mkfifo(path / "a.txt")
    assert checkpoint.verify(path) == [
        f"{path / 'a.txt'}: is not a regular file",
        f"{path / 'model.safetensors'}: is not a regular file",
    ]


def test_a_path_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="there is no such checkpoint directory"):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(CorruptError, match="COMPLETE: is missing"):
        checkpoint.load(tmp_path)


def test_a_folder_that_is_a_file_is_a_machine_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError) as caught:
        checkpoint.save(tmp_path / "file" / "checkpoints", 1, {}, {})
    assert str(tmp_path / "file" / "checkpoints") in str(caught.value)
    assert "\n" not in str(caught.value)
