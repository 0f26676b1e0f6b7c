"""The load of ``bench-serve`` on a real server, and its figures."""

from __future__ import annotations

import json

import pytest

from modelwright.cli import main
from modelwright.errors import MachineError, ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.keys import Keys
from modelwright.serving.load import Load, Outcome, run, summary
from tests.serving.parts import running


def test_the_figures_are_those_of_the_answers():
    quick = Outcome("200", first=0.1, gaps=[0.01, 0.03], total=0.2, tokens=10, prompt_tokens=5)
    slow = Outcome("200", first=0.5, gaps=[0.02], total=1.0, tokens=20, prompt_tokens=5)
    found = summary([quick, slow, Outcome("429"), Outcome("cut off")], 2.0)
    assert found["requests"] == 4 and found["answered"] == 2
    assert found["refused"] == {"429": 1, "cut off": 1}
    assert found["tokens_per_second"] == 15 and found["prompt_tokens_per_second"] == 5
    assert found["requests_per_second"] == 1
    assert found["time_to_first_token"] == {"p50": 0.3, "p99": 0.5}
    assert found["inter_token_latency"] == {"p50": 0.02, "p99": 0.03}
    assert summary([Outcome("429")], 1.0)["latency"] == {}


def test_a_server_is_loaded_and_counts_the_same(served, capsys):
    before = served.service.metrics._counts["generation_tokens_total", ""]
    command = ["bench-serve", served.url, "--rate", "40", "--requests", "12", "--prompt-words", "4",
               "--shared-words", "2", "--max-tokens", "6", "--json"]  # fmt: skip
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answered"] == 12 and found["refused"] == {}
    assert found["tokens_per_second"] * found["seconds"] == pytest.approx(72)
    assert served.service.metrics._counts["generation_tokens_total", ""] - before == 72
    assert 0 < found["time_to_first_token"]["p50"] <= found["latency"]["p50"]
    assert main([part for part in command if part != "--json"]) == 0
    assert "time to first token" in capsys.readouterr().out


def test_refusals_are_counted_and_keys_are_sent(model, codec, tmp_path):
    with running(Engine(model, codec, max_batch=1, max_waiting=1), api_key="secret") as served:
        load = Load(served.url, rate=500, requests=20, prompt_words=2, max_tokens=30, key="secret")
        found = run(load)
        assert found["answered"] + found["refused"]["429"] == 20
        with pytest.raises(MachineError, match="401"):
            run(Load(served.url))
    with pytest.raises(MachineError, match="no server answers"):
        run(Load(served.url))
    for wrong in ("ftp://x", "nothing"):
        with pytest.raises(ModelwrightError, match="an address like"):
            Load(wrong)
    with pytest.raises(ModelwrightError, match="above 0"):
        Load("http://x", rate=0)


def test_a_server_that_can_answer_none_says_why(served):
    with pytest.raises(
        ModelwrightError, match=r"refused all 2 requests: .*context.*; ask for less"
    ):
        run(Load(served.url, rate=100, requests=2, prompt_words=4000))


def test_a_key_is_made_once_and_its_hash_alone_is_kept(tmp_path, capsys):
    path = tmp_path / "keys"
    assert main(["new-key", "anna", str(path), "--requests", "60"]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("mw-") and key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["new-key", "ben", str(path)]) == 0
    client = Keys(path).client(key.encode())
    assert (client.name, client.requests.most, client.tokens.most) == ("anna", 60, 0)
    assert main(["new-key", "anna", str(path)]) != 0
    assert "already" in capsys.readouterr().err
    assert main(["new-key", "no name", str(path)]) != 0
    assert len(path.read_text().splitlines()) == 2
