"""The catalog: every entry is whole, the mirror comes first, and what is fetched is checked."""

from __future__ import annotations

import re

import pytest

from modelwright.data import catalog
from modelwright.data.catalog import DataFile, DataSet, entry, get, names
from modelwright.data.readers.reader import make_reader
from modelwright.data.sources import FOLDERS, ORIGINS
from modelwright.errors import CorruptError, ModelwrightError
from tests.data_stage.test_fetching import CONTENT, SHA, served

WANTED = {"imagenet", "imdb", "imdb_full", "wikipedia_en", "wikipedia_zh", "mnist", "cifar10"}
WANTED |= {"multi30k", "squad", "speech_commands", "ljspeech"}


def test_every_entry_is_whole():
    assert (WANTED | {FOLDERS.get(name, name) for name in ORIGINS}).issubset(names())
    for name in names():
        one = entry(name)
        assert one.about and one.license and one.origin, name
        if one.reader:
            make_reader(one.reader, one.settings)
        for file in one.files:
            assert file.mirror or file.address, (name, file.name)
            for digest in (file.mirror, file.sha256):
                assert digest is None or re.fullmatch("[0-9a-f]{64}", digest), (name, file.name)
            assert file.address is None or file.address.startswith("https://"), (name, file.name)
            assert "/" not in file.name


def test_every_set_of_the_mirror_is_in_the_catalog(data):
    said = re.findall(r"^\| ([a-z0-9_]+) \| \d", data("INDEX.md").read_text(), re.MULTILINE)
    assert len(said) > 30 and set(said) <= set(names())


def test_the_mirror_is_taken_first_and_checked(data, monkeypatch, tmp_path):
    root = data("INDEX.md").parent
    monkeypatch.setenv("MODELWRIGHT_DATA", str(root))
    said: list[str] = []
    for name in ("multi30k", "kathleen", "mnist"):
        assert get(name, tmp_path, said.append) == root / name
    assert "licence: CC0 1.0" in said[1]
    assert not list(tmp_path.iterdir())


def test_a_damaged_mirror_is_told(monkeypatch, tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be")
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    with pytest.raises(CorruptError, match=r"input\.txt: sha256 is .* get the file again"):
        get("tinyshakespeare", None, print)


def test_what_must_be_got_by_hand_says_whence(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    with pytest.raises(ModelwrightError, match=r"image-net\.org.*into DIR/imagenet"):
        get("imagenet", tmp_path, print)
    with pytest.raises(ModelwrightError, match=r"Shenggan/BCCD_Dataset.*packed as tar"):
        get("bccd", tmp_path, print)
    with pytest.raises(ModelwrightError, match="did you mean 'ljspeech'"):
        get("ljspech", tmp_path, print)


def test_fetched_into_a_folder_and_found_there_again(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    with served({"/a": (CONTENT, {}), "/b": (CONTENT, {})}) as (address, asked):
        pinned = DataFile("a.bin", address=f"{address}/a", sha256=SHA, bytes=len(CONTENT))
        loose = DataFile("b.bin", address=f"{address}/b")
        one = DataSet("toy", "about", "CC0", "here", files=(pinned, loose))
        monkeypatch.setattr(catalog, "_entries", lambda: {"toy": one})
        said: list[str] = []
        folder = get("toy", tmp_path, said.append)
        assert folder == tmp_path / "toy"
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
            "a.bin": CONTENT,
            "b.bin": CONTENT,
        }
        assert "b.bin: no sha256 is known for certain" in " ".join(said)
        assert get("toy", tmp_path, said.append) == folder and len(asked) == 2
