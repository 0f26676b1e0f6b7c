"""Runs and adapters that come and go in a server at work, the engine killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.served import ServedRuns, Settings
from modelwright.serving.limits import Limits
from modelwright.serving.server import build_app
from tests.exporting import tiny_runs
from tests.hub import small
from tests.serving.parts import running, wait_for

ASK = "/v1/completions"
ADMIN = {"Authorization": "Bearer mw-admin"}
BODY = {"prompt": "import ", "max_tokens": 10, "temperature": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a base with an adapter, a run with another, and one of another base."""
    folder = tmp_path_factory.mktemp("served")
    made = tiny_runs.RECIPES["decoder"](folder / "data")
    tune = {k: v for k, v in made["train"].items() if k not in ("optimizer", "learning_rate")}
    for name, adapter, rate in (
        ("base", {"rank": 4}, 0.02), ("two", {"rank": 2, "dora": True}, 0.02),
        ("whole", {"rank": 2, "trained": ["norm"]}, 0.02), ("other", {"rank": 4}, 0.021),
    ):  # fmt: skip
        stage = {**tune, "adapter": adapter, "learning_rate": 0.02}
        train = {**made["train"], "learning_rate": rate}
        api.tune(
            {"name": name, "seed": 1, **made, "train": train, "tune": stage}, out=folder / name
        )
    return folder


@pytest.fixture(scope="module")
def answers(place):
    """What each run answers by itself, its adapter merged."""
    found = {}
    for name, stage in (("base", "train"), ("base", "tune"), ("two", "tune"), ("other", "tune")):
        run = api.existing(str(place / name))
        model = api.Model(load_fitted(newest_checkpoint(run, stage)))
        found[name, stage] = model.complete("import ", max_tokens=10, temperature=0.0)
    return found


def runs_of(place, *, separate):
    settings = Settings(run=str(place / "base"), stage="train", max_batch=4)
    return ServedRuns(place, settings, lambda _: None, Limits(), separate=separate)


def said(http, model):
    answer = http.post(ASK, json={**BODY, "model": model})
    return answer.json()["choices"][0]["text"] if answer.status_code == 200 else answer.json()


def test_adapters_and_runs_come_and_go_while_the_engine_is_killed(place, answers):
    runs = runs_of(place, separate=True)
    engine = runs.first()
    given = {"runs": runs, "admin_key": "mw-admin", "limits": Limits(models=2)}
    with running(engine, **given) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        assert said(http, "tiny") == answers["base", "train"]
        for name, run in (("a", "base"), ("b", "two")):
            body = {"model": "tiny", "name": name, "run": run}
            told = http.post("/admin/adapters", json=body, headers=ADMIN)
            assert told.json() == {"id": f"tiny:{name}", "object": "model", "parent": "tiny"}
        assert said(http, "tiny:a") == answers["base", "tune"]
        assert said(http, "tiny:b") == answers["two", "tune"]
        listed = http.get("/v1/models").json()["data"]
        assert [card["id"] for card in listed] == ["tiny", "tiny:a", "tiny:b"]
        assert listed[1]["parent"] == "tiny"

        first = engine.process.pid  # a new process is given the adapters before it answers
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: engine.process.pid != first and engine.alive, 60)
        assert said(http, "tiny:b") == answers["two", "tune"]

        told = http.post("/admin/models", json={"run": "other"}, headers=ADMIN)
        assert told.status_code == 200 and told.json()["id"] == "other"
        assert said(http, "other") == answers["other", "tune"]
        assert http.get("/health").status_code == 200
        full = http.post("/admin/models", json={"run": "two"}, headers=ADMIN)
        assert (full.status_code, full.json()["error"]["code"]) == (409, "conflict")
        gone = http.delete("/admin/models/other", headers=ADMIN)
        assert gone.json() == {"id": "other", "object": "model", "deleted": True}
        assert said(http, "other")["error"]["code"] == "model_not_found"

        http.delete("/admin/adapters/tiny:a", headers=ADMIN)
        assert said(http, "tiny:a")["error"]["code"] == "model_not_found"
        assert said(http, "tiny") == answers["base", "train"]


def test_a_folder_of_pefts_is_an_adapter_by_request(tmp_path):
    """A base as published, an adapter in PEFT's format beside it: served by name."""
    small.gpt2(tmp_path / "gpt2")
    rows = [{"id": f"{i}", "text": f"row {i} of some text. " * 9} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    stage = {"steps": 4, "batch": 2, "threads": 1, "compile": False, "precision": "float32"}
    stage |= {"task": "documents", "learning_rate": 0.05}
    made = {
        "name": "base", "model": str(tmp_path / "gpt2"), "train": stage,
        "data": {"source": str(tmp_path / "rows.jsonl"), "split": {"by": "row"}},
        "tune": {**stage, "adapter": {"rank": 4}},
    }  # fmt: skip
    place = tmp_path / "runs"
    run = api.tune(made, out=place / "base")
    export(run, place / "formal", lambda _: None, to="peft")
    wanted = api.Model(load_fitted(newest_checkpoint(run, "tune")))
    plain = api.Model(load_fitted(newest_checkpoint(run, "train")))
    ask = {"max_tokens": 10, "temperature": 0.0}
    runs = runs_of(place, separate=False)
    given = {"runs": runs, "admin_key": "mw-admin"}
    with (
        running(runs.first(), **given) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        body = {"model": "tiny", "name": "formal", "run": "formal"}
        told = http.post("/admin/adapters", json=body, headers=ADMIN)
        assert told.status_code == 200, told.text
        assert said(http, "tiny:formal") == wanted.complete("import ", **ask)
        assert said(http, "tiny") == plain.complete("import ", **ask)
        assert said(http, "tiny:formal") != said(http, "tiny")
        refused = http.post("/admin/models", json={"run": "formal"}, headers=ADMIN)
        assert refused.status_code == 400  # an adapter alone is no model


def test_what_cannot_be_taken_is_told_and_harms_nobody(place, answers):
    """S27: a bad adapter is an error of its caller; S10: a name is no path."""
    runs = runs_of(place, separate=False)
    engine = runs.first()
    with (
        running(engine, runs=runs, admin_key="mw-admin") as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        for run, why in (
            ("other", "another base"), ("whole", "all rows of a batch share"),
            ("bse", "did you mean 'base'"), ("data", "no run 'data'"),
        ):  # fmt: skip
            body = {"model": "tiny", "name": "x", "run": run}
            told = http.post("/admin/adapters", json=body, headers=ADMIN)
            assert told.status_code == 400 and why in told.json()["error"]["message"], run
        for run in ("../base", "/etc", "", ".", "base/../two"):
            for path in ("/admin/adapters", "/admin/models"):
                body = {"run": run} | ({"model": "tiny"} if path.endswith("adapters") else {})
                told = http.post(path, json=body, headers=ADMIN)
                assert told.status_code == 400 and told.json()["error"]["param"] == "run"
        assert http.delete("/admin/models/tiny", headers=ADMIN).status_code == 409
        assert http.delete("/admin/adapters/tiny:x", headers=ADMIN).status_code == 404
        assert said(http, "tiny") == answers["base", "train"]
        assert http.post("/v1/embeddings", json={"model": "tiny", "input": "a"}).status_code == 200


@pytest.mark.parametrize("weights", ["int4", "bfloat16"])
def test_a_base_in_few_bits_takes_no_adapter_and_says_so(place, weights):
    """Neither a run's nor PEFT's, whose files may not say what their base is."""
    peft = f"peft-{weights}"
    export(api.existing(str(place / "base")), place / peft, lambda _: None, to="peft")
    settings = Settings(run=str(place / "base"), stage="train", weights=weights)
    runs = ServedRuns(place, settings, lambda _: None, Limits(), separate=False)
    engine = runs.first()
    for run in ("base", "two", "other", peft):
        with pytest.raises(ModelwrightError, match="served in few bits.*without --weights"):
            runs.adapt(engine, "x", run)
    assert not engine.adapters


def test_the_command_refuses_both_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("name: a\n")
    assert main(["serve", str(tmp_path), "--weights", "int8", "--adapter", "a"]) == 2
    assert "a base in few bits takes no adapters" in capsys.readouterr().err


@pytest.mark.parametrize("key", [None, "mw-client", "mw-admin"])
def test_every_admin_route_has_a_key_of_its_own(place, key):
    """S22: no key and the clients' key open nothing there, and the admin's nothing elsewhere."""
    runs = runs_of(place, separate=False)
    app = build_app(
        runs.first(), model_name="tiny", api_key="mw-client", admin_key="mw-admin", runs=runs
    )
    routes = [(r.path, m) for r in app.routes for m in r.methods if m != "HEAD"]
    assert sum(path.startswith("/admin") for path, _ in routes) == 5
    given = {"runs": runs, "api_key": "mw-client", "admin_key": "mw-admin"}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with (
        running(runs.first(), **given) as served,
        httpx.Client(base_url=served.url, headers=headers, timeout=60) as http,
    ):
        for path, method in routes:
            status = http.request(method, path.replace("{name:path}", "none")).status_code
            right = "mw-admin" if path.startswith("/admin") else "mw-client"
            open_ = path in ("/", "/health", "/ready")
            assert (status == 401) == (not open_ and key != right), (path, method)


def test_an_admin_key_must_be_another():
    with pytest.raises(ModelwrightError, match="another than the API key"):
        build_app(None, model_name="x", api_key="a", admin_key="a")


def test_sigterm_under_load_drains_and_leaves_no_process(place):
    """S19: what is under way is finished, exit 0, no orphan."""
    command = [sys.executable, "-m", "modelwright", "serve", str(place / "base"), "--port", "0"]
    command += ["--adapter", "two", "--stage", "train"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split(" at ")[1].split()[0]
        tasks = Path(f"/proc/{process.pid}/task")
        children = " ".join((one / "children").read_text() for one in tasks.iterdir()).split()
        assert len(children) == 1
        body = {**BODY, "model": "base:two", "max_tokens": 60, "stream": True}
        lines = []
        with httpx.stream("POST", url + ASK, json=body, timeout=60) as response:
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) == 1:
                    process.send_signal(signal.SIGTERM)
        assert lines[-2] == "data: [DONE]" and '"finish_reason": "' in "".join(lines)
        assert process.wait(timeout=45) == 0
        wait_for(lambda: not Path(f"/proc/{children[0]}").exists())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
