"""Handing over: what is written starts the engine, and the engine answers as the run does."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.exporting.gguf import tools
from modelwright.models.quantized import is_packed
from modelwright.pipeline.deploy import deploy, docker, targets
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.exporting import tiny_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A Llama of two layers, on paragraphs of source."""
    folder = tmp_path_factory.mktemp("deployed")
    made = tiny_runs.decoder(folder / "data")
    shape = {"family": "llama", "depth": 2, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 64}
    made["model"] = {**shape, "context": 48}
    made["codec"] = {"vocabulary": 300, "split": "qwen2"}  # which llama.cpp knows
    return api.train({"name": "tiny", "seed": 1, **made}, out=folder / "tiny")


def quiet(_: str) -> None:
    pass


def test_the_targets_are_those_that_are_told_of():
    assert targets() == ["docker", "llama.cpp", "ray-serve", "vllm"]


def test_the_same_server_in_a_container_answers_as_the_run(run, tmp_path):
    out = tmp_path / "box"
    found = deploy(run, out, quiet, to="docker")
    assert "4 of 4 greedy answers are the run's own" in found[1]
    lines = (out / "Dockerfile").read_text()
    assert "USER 10001:10001" in lines and docker.lint(lines) == []
    command = (out / "run.sh").read_text()
    for word in ("--read-only", "--cap-drop ALL", "no-new-privileges", "MODELWRIGHT_API_KEY:?"):
        assert word in command
    for script in ("run.sh", "build.sh", "launch.sh"):
        subprocess.run(["/bin/sh", "-n", str(out / script)], check=True)
    samples = json.loads((out / "samples.json").read_text())
    assert len(samples) == 4 and all(s["path"] == "/v1/completions" for s in samples)


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_what_is_shipped_is_the_model_alone_and_in_as_few_bits_as_asked_for(run, tmp_path):
    """Neither the optimizer's state nor, in fewer bits, the weights that they were made of."""
    kept = newest_checkpoint(run)
    before = checkpoint.load(kept)
    assert "optimizer" in before.tensors
    shipped = {}
    for weights in (None, "int8"):
        out = tmp_path / str(weights)
        found = deploy(run, out, quiet, to="docker", weights=weights)
        assert "4 of 4 greedy answers are the run's own" in found[1]
        (path,) = (out / "run" / "checkpoints").rglob("step-*")
        shipped[weights] = checkpoint.load(path)
        assert [*shipped[weights].tensors] == ["model"]
        assert "state.json" not in shipped[weights].documents
        assert size(out / "run") < size(kept) / 2
        assert checkpoint.verify(path) == []
    own = before.tensors["model"]
    assert all(torch.equal(t, own[n]) for n, t in shipped[None].tensors["model"].items())
    narrow, whole = (size(tmp_path / n / "run" / "checkpoints") for n in ("int8", "None"))
    assert narrow < whole
    served = load_fitted(next((tmp_path / "int8" / "run" / "checkpoints").rglob("step-*")))
    assert is_packed(served.model)


@pytest.mark.parametrize("to", ["vllm", "llama.cpp"])
def test_few_bits_of_ours_are_for_our_own_server(run, tmp_path, to):
    with pytest.raises(ModelwrightError, match="--weights: docker and ray-serve serve them"):
        deploy(run, tmp_path / "out", quiet, to=to, weights="int4")


@pytest.mark.parametrize(
    ("change", "why"),
    [(("USER 10001:10001", "USER root"), "root"), (("USER 10001:10001\n", ""), "root"),
     (("3.11-slim-bookworm", "latest"), "latest"), (("HEALTHCHECK", "ADD"), "ADD is unknown"),
     (('["modelwright", "serve"', 'modelwright serve "'), "ENTRYPOINT"),
     (("EXPOSE 8000", "RUN pip install x"), "RUN after USER")],
)  # fmt: skip
def test_a_container_file_that_breaks_a_rule_is_named(change, why):
    values = {"base": docker.BASE, "version": "1", "run": "run", "name": "a", "user": docker.USER}
    text = docker._FILE.format(**values)
    assert docker.lint(text) == []
    assert any(why in line for line in docker.lint(text.replace(*change)))


def test_llama_cpp_answers_as_the_run(run, tmp_path):
    if tools.tool("llama-server") is None:
        pytest.skip(f"no llama-server on PATH or in {tools.PLACE}")
    found = deploy(run, tmp_path / "out", quiet, to="llama.cpp")
    assert "4 of 4 greedy answers are the run's own" in found[1]
    launch = (tmp_path / "out" / "launch.sh").read_text()
    assert "--model ./model/model-f32.gguf" in launch and '--port "$PORT"' in launch


def test_vllm_gets_what_it_reads(run, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["deploy", str(run.path), str(out), "--to", "vllm", "--dtype", "bfloat16", "--no-start"]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert "LlamaForCausalLM is one of vLLM's, 48 tokens, bfloat16" in told
    launch = (out / "launch.sh").read_text()
    assert "exec vllm serve ./model --served-model-name tiny" in launch
    assert "--max-model-len 48" in launch


def test_an_engine_that_answers_otherwise_leaves_nothing(run, tmp_path, monkeypatch):
    from modelwright.pipeline import deploy as package

    def planted(*given):
        found = samples(*given)
        found[2]["answer"] += "!"
        return found

    samples = package.samples_of
    monkeypatch.setattr(package, "samples_of", planted)
    with pytest.raises(ModelwrightError, match="sample 3 is answered with"):
        deploy(run, tmp_path / "out", quiet, to="docker")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_one_line(run, tmp_path):
    with pytest.raises(ModelwrightError, match="did you mean 'llama.cpp'"):
        deploy(run, tmp_path / "out", quiet, to="llamacpp")
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelwrightError, match="exists"):
        deploy(run, tmp_path / "there", quiet, to="vllm")


@pytest.mark.parametrize("to", ["vllm", "llama.cpp", "ray-serve"])
def test_what_others_can_reach_does_not_start_without_a_key(run, tmp_path, to):
    """R5: an engine on an open address asks for a key, whatever engine it is."""
    out = tmp_path / "out"
    deploy(run, out, quiet, to=to, host="0.0.0.0", start=False)  # noqa: S104
    launch = (out / "launch.sh").read_text()
    (out / "launch.sh").write_text(launch.replace("exec ", "exec echo "))
    started = [
        subprocess.run(
            ["sh", str(out / "launch.sh")],
            env={"PATH": os.environ["PATH"], **given},
            capture_output=True,
            text=True,
            check=False,
        )
        for given in ({}, {"MODELWRIGHT_API_KEY": "secret"})
    ]
    assert started[0].returncode != 0
    assert "others can reach 0.0.0.0, so set a key" in started[0].stderr
    assert started[1].returncode == 0, started[1].stderr
    variable = {"vllm": "VLLM_API_KEY", "llama.cpp": "LLAMA_API_KEY"}.get(to)
    assert variable is None or f'export {variable}="$MODELWRIGHT_API_KEY"' in launch
