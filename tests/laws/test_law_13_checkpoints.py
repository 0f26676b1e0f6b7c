"""Law 13, the reader's half: a damaged checkpoint is never loaded, and the damage is named.

Bits are flipped, files cut, emptied, lost, added and swapped.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelwright import checkpoint
from modelwright.checkpoint.layout import Manifest
from modelwright.errors import EXIT_CORRUPT, CorruptError
from tests.laws.checkpoint_parts import DOCUMENTS, all_files, assert_holds, contents, save


def place_of(path: Path, file: Path, offset: int) -> str:
    """What the message must call the byte at ``offset``: a tensor, the header or the content."""
    if file.suffix != ".safetensors":
        return "content"
    manifest = Manifest.decode((path / "manifest.json").read_bytes())
    group = manifest.groups[file.stem]
    begin = len(group.header())
    for name, record in group.tensors.items():
        if begin <= offset < begin + record.nbytes:
            return f"tensor {name!r}"
        begin += record.nbytes
    return "header"


def test_every_one_of_200_single_bit_flips_is_detected_and_named(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    rng = random.Random(0)
    everything = all_files(path)
    hit: dict[str, int] = {}
    for trial in range(200):
        file = everything[trial % len(everything)]
        sound = file.read_bytes()
        offset = rng.randrange(len(sound))
        place = place_of(path, file, offset)
        damaged = bytearray(sound)
        damaged[offset] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(CorruptError) as caught:
            checkpoint.load(path, groups=["model"])
        message = str(caught.value)
        assert message.startswith(f"{file}: {place} is damaged (sha256 expected "), message
        assert "actual" in message
        assert "restore" in message
        assert "\n" not in message
        assert caught.value.exit_code == EXIT_CORRUPT
        assert len(checkpoint.verify(path)) == 1
        file.write_bytes(sound)
        hit[place.split()[0]] = hit.get(place.split()[0], 0) + 1
    assert set(hit) == {"tensor", "header", "content"}
    assert_holds(checkpoint.load(path), 100)


def test_every_byte_of_the_smallest_checkpoint_counts(tmp_path: Path) -> None:
    groups = {"model": {"w": torch.tensor([1.5])}}
    path = checkpoint.save(tmp_path, 1, groups, {"a.txt": b"a"})
    for file in all_files(path):
        sound = file.read_bytes()
        for offset in range(len(sound)):
            damaged = bytearray(sound)
            damaged[offset] ^= 1 << (offset % 8)
            file.write_bytes(damaged)
            (problem,) = checkpoint.verify(path)
            assert problem.startswith(f"{file}: ")
        file.write_bytes(sound)
    assert checkpoint.verify(path) == []


def test_the_flip_of_a_weight_is_what_others_would_have_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    file = path / "model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-40] ^= 1
    file.write_bytes(damaged)
    assert load_file(file)  # the format alone does not notice: the manifest is needed
    with pytest.raises(CorruptError):
        checkpoint.load(path)


@pytest.mark.parametrize("name", [*DOCUMENTS, "manifest.json", "COMPLETE"])
def test_short_long_empty_and_missing_documents(tmp_path: Path, name: str) -> None:
    _short_long_empty_and_missing(tmp_path, name)


@pytest.mark.parametrize("group", contents(1))
def test_short_long_empty_and_missing_shards(tmp_path: Path, group: str) -> None:
    _short_long_empty_and_missing(tmp_path, f"{group}.safetensors")


def _short_long_empty_and_missing(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    file = path / name
    sound = file.read_bytes()
    for damaged in (b"", sound[:1], sound[:-1], sound[: len(sound) // 2], sound + b"\0", None):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(CorruptError) as caught:
            checkpoint.load(path)
        assert str(caught.value).startswith(f"{file}: "), str(caught.value)
        assert f"go back to {tmp_path / 'step-00000001'}" in str(caught.value)
        found, messages = checkpoint.newest_sound(tmp_path)
        assert_holds(found, 1)
        if name != "COMPLETE" or damaged is not None:  # without COMPLETE it does not count
            assert len(messages) == 1
            assert f"{file}: " in messages[0]
        file.write_bytes(sound)
    assert_holds(checkpoint.newest_sound(tmp_path)[0], 2)


@pytest.mark.parametrize(
    "extra", ["more.safetensors", "codec/more.json", "deep/er", "COMPLETE.tmp"]
)
def test_an_added_file_is_detected(tmp_path: Path, extra: str) -> None:
    path = save(tmp_path, 1)
    (path / extra).parent.mkdir(exist_ok=True)
    (path / extra).write_bytes(b"x")
    assert f"{path / extra}: does not belong to this checkpoint" in checkpoint.verify(path)
    with pytest.raises(CorruptError, match="does not belong"):
        checkpoint.load(path)


def test_any_file_swapped_from_another_step_is_detected(tmp_path: Path) -> None:
    old, new = (
        save(tmp_path, 1),
        checkpoint.save(tmp_path, 2, contents(2), dict.fromkeys(DOCUMENTS, b"other")),
    )
    for file in all_files(new):
        sound = file.read_bytes()
        shutil.copy(old / file.relative_to(new), file)
        with pytest.raises(CorruptError) as caught:
            checkpoint.load(new)
        named = new / "manifest.json" if file.name == "COMPLETE" else file
        assert str(caught.value).startswith(f"{named}: "), str(caught.value)
        file.write_bytes(sound)
    assert checkpoint.verify(new) == []


def test_a_whole_directory_under_the_name_of_another_step_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    shutil.copytree(path, tmp_path / "step-00000007")
    with pytest.raises(CorruptError, match="belongs to step 1, not to this directory"):
        checkpoint.load(tmp_path / "step-00000007")
    shutil.copytree(path, tmp_path / "best")  # a copy under a name of one's own is fine
    assert checkpoint.verify(tmp_path / "best") == []


def test_when_none_is_sound_nothing_is_loaded_and_each_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").write_bytes(b"")
    found, messages = checkpoint.newest_sound(tmp_path)
    assert found is None
    assert ["step-00000002" in messages[0], "step-00000001" in messages[1]] == [True, True]
