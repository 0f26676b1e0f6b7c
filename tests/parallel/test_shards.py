"""Sharded checkpoints: cut, written, read by other numbers of processes, damaged.

The processes are threads here, which exchange their words at a barrier: the real ones are in
test_resharding.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelwright import checkpoint
from modelwright.checkpoint import Piece, Region
from modelwright.checkpoint.regions import problem_of
from modelwright.errors import CorruptError, MachineError, ModelwrightError

DOCUMENTS = {"state.json": b"{}", "codec/words.json": b"[]"}


class Peer:
    """One of several threads that say something to each other at the same time."""

    def __init__(self, rank: int, barrier: threading.Barrier, heard: list[str]) -> None:
        self.rank, self.size = rank, barrier.parties
        self.barrier, self.heard = barrier, heard

    def gather(self, text: str) -> list[str]:
        self.heard[self.rank] = text
        self.barrier.wait(30)
        every = list(self.heard)
        self.barrier.wait(30)
        return every


def together(size: int, work: Callable[[Peer], Any]) -> list[Any]:
    """What ``work`` gives in each of ``size`` processes, or the error it raised."""
    barrier, heard = threading.Barrier(size), [""] * size
    outcome: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            outcome[rank] = work(Peer(rank, barrier, heard))
        except ModelwrightError as error:
            outcome[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def wholes(step: int) -> dict[str, Tensor]:
    """Odd sizes, few rows, no dimension, no element."""
    generator = torch.Generator().manual_seed(step)
    return {
        "a": torch.randn(7, 3, generator=generator),
        "b": torch.randn(2, 6, generator=generator).bfloat16(),
        "step": torch.tensor(float(step)),
        "none": torch.empty(0, 4),
    }


def part(shape: tuple[int, ...], size: int, rank: int) -> Region:
    """Cut along the first dimension, where there is one."""
    region = Region.all(shape)
    return region.chunk(0, size, rank) if shape and shape[0] else region


def pieces(step: int, peer: Peer) -> dict[str, Piece]:
    made = {}
    for name, tensor in wholes(step).items():
        region = part(tuple(tensor.shape), peer.size, peer.rank)
        made[name] = Piece(region.of(tensor).clone(), region, not region.whole or peer.rank == 0)
    made["tied"] = Piece(made["a"].data, made["a"].region, same_as="a")
    return made


def save(folder: Path, step: int, size: int) -> Path:
    """Write ``wholes(step)`` as ``size`` processes."""

    def work(peer: Peer) -> Path:
        return checkpoint.save_sharded(folder, step, {"model": pieces(step, peer)}, DOCUMENTS, peer)

    paths = together(size, work)
    assert paths == [folder / f"step-{step:08d}"] * size
    return folder / f"step-{step:08d}"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_process_reads_it_whole(tmp_path: Path, size: int) -> None:
    path = save(tmp_path, 3, size)
    names = {p.name for p in path.glob("*.safetensors")}
    assert names == {f"model-{i + 1:05d}-of-{size:05d}.safetensors" for i in range(size)}
    found = checkpoint.load(path)
    assert found.documents == DOCUMENTS
    for name, tensor in wholes(3).items():
        assert torch.equal(found.tensors["model"][name], tensor)
        assert found.tensors["model"][name].dtype == tensor.dtype
    assert found.tensors["model"]["tied"] is found.tensors["model"]["a"]
    assert checkpoint.verify(path) == []


@pytest.mark.parametrize("written", [1, 2, 4])
@pytest.mark.parametrize("read", [1, 2, 3, 4, 8])
def test_any_number_of_processes_reads_its_parts(tmp_path: Path, written: int, read: int) -> None:
    save(tmp_path, 3, written)
    _read_by(tmp_path, read)


@pytest.mark.parametrize("read", [2, 4])
def test_parts_of_what_one_process_saved(tmp_path: Path, read: int) -> None:
    checkpoint.save(tmp_path, 3, {"model": {**wholes(3), "tied": wholes(3)["a"]}}, DOCUMENTS)
    _read_by(tmp_path, read)


def _read_by(folder: Path, size: int) -> None:
    def work(peer: Peer) -> bool:
        found, messages = checkpoint.newest_sound_together(
            folder, peer, wanted=lambda group, name, shape: part(shape, peer.size, peer.rank)
        )
        assert found is not None
        assert messages == []
        return all(
            torch.equal(
                found.tensors["model"][name],
                part(tuple(tensor.shape), peer.size, peer.rank).of(tensor),
            )
            for name, tensor in wholes(3).items()
        )

    assert together(size, work) == [True] * size


def test_a_process_reads_no_piece_it_does_not_need(tmp_path: Path) -> None:
    """The first of four survives the damage of what the last one has; whoever reads it does not."""
    path = save(tmp_path, 1, 4)
    file = path / "model-00004-of-00004.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    first = checkpoint.load(path, wanted=lambda g, n, shape: part(shape, 4, 0))
    assert torch.equal(first.tensors["model"]["a"], wholes(1)["a"][:2])
    with pytest.raises(CorruptError, match="model-00004-of-00004"):
        checkpoint.load(path, wanted=lambda g, n, shape: part(shape, 4, 3))
    with pytest.raises(CorruptError, match="model-00004-of-00004"):
        checkpoint.load(path)


def test_every_flipped_bit_in_any_shard_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 2, 4)
    rng = random.Random(0)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for trial in range(100):
        file = files[trial % len(files)]
        sound = file.read_bytes()
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(CorruptError) as caught:
            checkpoint.load(path, groups=["model"])
        assert str(caught.value).startswith(f"{file}: "), str(caught.value)
        assert "is damaged (sha256 expected" in str(caught.value)
        file.write_bytes(sound)
    assert checkpoint.verify(path) == []


def test_all_go_back_when_one_finds_damage(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    path = save(tmp_path, 2, 2)
    (path / "model-00002-of-00002.safetensors").write_bytes(b"")

    def work(peer: Peer) -> tuple[int, str]:
        found, messages = checkpoint.newest_sound_together(
            tmp_path, peer, wanted=lambda g, n, shape: part(shape, peer.size, peer.rank)
        )
        assert found is not None
        return found.step, messages[0]

    for step, message in together(2, work):
        assert step == 1
        assert "model-00002-of-00002.safetensors: is cut short" in message


def test_lost_and_added_and_swapped_shards_are_named(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    path = save(tmp_path, 2, 2)
    one = path / "model-00001-of-00002.safetensors"
    sound = one.read_bytes()
    one.unlink()
    assert f"{one}: is missing" in checkpoint.verify(path)
    one.write_bytes((tmp_path / "step-00000001" / one.name).read_bytes())
    assert any(problem.startswith(f"{one}: ") for problem in checkpoint.verify(path))
    one.write_bytes(sound)
    (path / "model-00003-of-00003.safetensors").write_bytes(sound)
    assert any("does not belong" in problem for problem in checkpoint.verify(path))


def test_a_process_that_cannot_write_fails_all_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    from modelwright import files

    plain = files.write_file

    def refusing(path: Path, chunks: Any) -> None:
        if "00002-of" in path.name:
            raise OSError(28, "No space left on device")
        plain(path, chunks)

    monkeypatch.setattr(files, "write_file", refusing)

    def work(peer: Peer) -> Path:
        return checkpoint.save_sharded(tmp_path, 2, {"model": pieces(2, peer)}, DOCUMENTS, peer)

    errors = together(2, work)
    assert [type(error) for error in errors] == [MachineError] * 2
    assert str(errors[0]) == str(errors[1])
    assert "No space left" in str(errors[0])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_pieces_that_do_not_make_the_whole_are_never_sealed(tmp_path: Path) -> None:
    def work(peer: Peer) -> Path:
        region = Region((4,), (0,), (2,))  # both hold the same half
        made = {"a": Piece(torch.ones(2), region)}
        return checkpoint.save_sharded(tmp_path, 1, {"model": made}, {}, peer)

    for error in together(2, work):
        assert "do not fit together" in str(error)
    assert list(tmp_path.iterdir()) == []


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 5), min_size=3, max_size=3),
)
def test_chunks_make_the_whole_and_any_loss_is_seen(shape: list[int], cuts: list[int]) -> None:
    boxes = [Region.all(shape)]
    for dim, parts in enumerate(cuts[: len(shape)]):
        boxes = [b.chunk(dim, parts, i) for b in boxes for i in range(parts)]
    boxes = [b for b in boxes if b.numel]
    assert problem_of(shape, boxes) is None
    assert problem_of(shape, boxes[1:]) is not None
    assert problem_of(shape, [*boxes, boxes[0]]) is not None
    whole = torch.arange(Region.all(shape).numel).reshape(shape)
    for box in boxes:
        for other in boxes:
            common = box.common(other)
            assert (common == box) if box == other else (common is None)
    again = torch.full_like(whole, -1)
    for box in boxes:
        box.of(again).copy_(box.of(whole))
    assert torch.equal(again, whole)
