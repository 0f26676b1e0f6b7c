"""Checkpoints are found, pinned and opened; what is unsafe or damaged is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.hub.families import supported
from modelwright.hub.files import find
from modelwright.hub.loading import config_of, load
from tests.hub import small

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    small.gpt2(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def refused(source, why, kind=ModelwrightError):
    with pytest.raises(kind, match=why) as error:
        load(find(str(source)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder(folder):
    found = find(str(folder))
    assert found.revision is None and found.config["model_type"] == "gpt2"
    assert set(found.hashes()) == {"model.safetensors", "config.json"}


def test_what_is_no_checkpoint(tmp_path, folder):
    refused(tmp_path / "none", "no such folder")
    refused(tmp_path, "no config.json")
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors")
    (folder / "config.json").write_text("[1]")
    refused(folder, "cannot be read", CorruptError)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt"])
def test_a_pickle_is_refused_with_the_way_out(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    said = refused(folder, "a pickle can run code")
    assert "save_pretrained" in said and name in said


def test_code_of_the_checkpoint_is_never_run(folder):
    small.edit_config(folder, auto_map={"AutoModel": "modeling.Model"})
    refused(folder, "auto_map asks for code")


def test_an_unknown_architecture_names_the_nearest(folder):
    small.edit_config(folder, model_type="gpt_2")
    said = refused(folder, "model_type 'gpt_2' is not supported.*did you mean 'gpt2'")
    assert all(kind in said for kind in supported())


def test_an_index_may_name_no_file_elsewhere(folder):
    index = {"weight_map": {"wte.weight": "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "is no file name", CorruptError)
    index = {"weight_map": {"wte.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "is missing", CorruptError)


def test_a_cut_file(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for keep, why in ((len(content) - 7, "is cut short"), (100, "is cut short"), (4, "cut short")):
        path.write_bytes(content[:keep])
        refused(folder, why, CorruptError)
    path.write_bytes(content + b"x")
    refused(folder, "is too long", CorruptError)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(folder, "pointer of git-lfs", CorruptError)


def test_a_damaged_header(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    at = content.index(b'"data_offsets":[') + len(b'"data_offsets":[')
    content[at : at + 1] = b"9"
    path.write_bytes(bytes(content))
    refused(folder, "header is damaged", CorruptError)


PROGRAM = """
import sys
from modelwright.hub.files import find
from modelwright.errors import ModelwrightError
try:
    found = find(sys.argv[1], revision=sys.argv[2] or None, say=lambda line: print(line))
    print(found.revision)
    print(sorted(found.stated))
    found.hashes()
    print("sound")
except ModelwrightError as error:
    print(f"{type(error).__name__}: {error}")
"""


def asked(source, address, cache, revision=""):
    """What a process of its own finds: the hub's library reads its settings once."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(cache)}
    environment["HF_HUB_OFFLINE"] = "0"
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    environment["HF_HUB_DISABLE_XET"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, source, revision],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip().splitlines()


def test_the_hub(folder, tmp_path):
    pytest.importorskip("huggingface_hub")
    cache = tmp_path / "cache"
    with small.hub("me/tiny", folder, COMMIT) as (address, log):
        said = asked("hub:me/tiny", address, cache)
        assert said == [
            f"fetching hub:me/tiny at {COMMIT}",
            COMMIT,
            "['model.safetensors']",
            "sound",
        ]
        fetched = len([p for p in log if p.endswith("model.safetensors")])
        assert asked("hub:me/tiny@" + COMMIT, address, cache)[-1] == "sound"
        assert len([p for p in log if p.endswith("model.safetensors")]) == fetched
        assert "MachineError" in asked("hub:me/none", address, cache)[-1]
    # The hub is gone: the pinned copy is taken, and a flipped bit in it is noticed.
    assert asked("hub:me/tiny", address, cache, COMMIT)[-1] == "sound"
    (weights,) = cache.rglob("snapshots/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.resolve().write_bytes(bytes(content))
    assert "CorruptError" in asked("hub:me/tiny", address, cache, COMMIT)[-1]


def test_a_pickle_in_the_hub_is_not_even_fetched(folder, tmp_path):
    pytest.importorskip("huggingface_hub")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with small.hub("me/old", folder, COMMIT) as (address, log):
        said = asked("hub:me/old", address, tmp_path / "cache")
    assert "a pickle can run code" in said[-1]
    assert not any("resolve" in path for path in log)


def test_names_of_the_hub():
    with pytest.raises(ModelwrightError, match="write hub:OWNER/NAME"):
        find("hub:a/b/c d")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MachineError, match="pip install 'modelwright\\[data\\]'"):
        find("hub:me/tiny")


def test_a_field_of_a_wrong_type(folder):
    small.edit_config(folder, n_embd="wide")
    with pytest.raises(ModelwrightError, match="config.json: a field is missing or of a wrong"):
        config_of(find(str(folder)))
