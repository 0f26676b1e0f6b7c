"""Faults S12 to S25 on a real server: keys, rates, deadlines, slow clients, death and the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from modelwright.errors import ModelwrightError
from modelwright.serving import keys as key_files
from modelwright.serving.engine import Engine
from modelwright.serving.guard import OPEN_PATHS
from modelwright.serving.hosting import Tls
from modelwright.serving.keys import Keys, Rate, new_key
from modelwright.serving.limits import Limits
from modelwright.serving.server import serve
from tests.serving.parts import SlowModel, running, wait_for

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def line(name: str, key: str, *rates: int) -> str:
    return " ".join([name, hashlib.sha256(key.encode()).hexdigest(), *map(str, rates)])


# --- S24, R6: keys and rates ---------------------------------------------------------------------


def test_keys_of_a_file_come_and_go_without_a_restart(model, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(key_files, "CHECK_SECONDS", 0.0)
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{line('anna', 'a-key')}\n\n{line('ben', 'b-key')} # a guest\n")
    with running(Engine(model, codec), keys_file=path) as served:

        def status(key: str) -> int:
            return httpx.get(f"{served.url}/v1/models", headers=bearer(key)).status_code

        assert [status(k) for k in ("a-key", "b-key", "c-key")] == [200, 200, 401]
        assert httpx.get(f"{served.url}/v1/models").status_code == 401
        other = path.with_suffix(".new")
        other.write_text(line("ben", "b-new"))
        other.replace(path)
        assert [status(k) for k in ("a-key", "b-key", "b-new")] == [401, 401, 200]
        path.write_text("half a li")  # being written: those before it stay
        assert [status(k) for k in ("b-new", "a-key")] == [200, 401]


def test_a_new_key_opens_with_its_line(tmp_path):
    key, text = new_key("anna")
    path = tmp_path / "keys"
    path.write_text(text)
    assert key not in text
    assert Keys(path).client(key.encode()).name == "anna"
    assert Keys(path).client(b"mw-other") is None


@pytest.mark.parametrize(
    "text",
    ["anna", "anna abc", "anna " + "G" * 64, "an/na " + "0" * 64, "a " + "0" * 64 + " x",
     "a " + "0" * 64 + "\na " + "1" * 64, f"a {'0' * 64} \u00b2", f"a {'0' * 64} 1{'0' * 5000}"],
)  # fmt: skip
def test_a_wrong_file_of_keys_is_one_line(tmp_path, text):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ModelwrightError, match=r"keys") as error:
        Keys(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelwrightError, match="cannot be read"):
        Keys(tmp_path / "none")


def test_a_rate_is_that_of_the_last_minute():
    rate = Rate(10)
    taken = 0
    for second in range(600):  # three a second are asked for
        for _ in range(3):
            if not rate.wait(second):
                rate.take(second)
                taken += 1
    assert taken == 100  # ten minutes of ten
    rate = Rate(5)
    for _ in range(5):
        rate.take(100.5)
    wait = rate.wait(101.0)
    assert rate.wait(100.5 + wait - 2) > 0
    assert rate.wait(100.5 + wait) == 0
    assert Rate(0).wait(0) == 0


def test_each_key_has_its_own_rate_of_requests_and_tokens(model, codec, tmp_path):
    path = tmp_path / "keys"
    lines = [line("few", "f", 2, 0), line("tokens", "t", 0, 5), line("free", "u")]
    path.write_text("\n".join(lines))
    with running(Engine(model, codec), keys_file=path) as served, httpx.Client() as http:

        def ask(key: str) -> httpx.Response:
            return http.post(served.url + CHAT, json=ASK, headers=bearer(key))

        assert [ask("f").status_code for _ in range(3)] == [200, 200, 429]
        refused = ask("f")
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert [ask("t").status_code for _ in range(2)] == [200, 429]  # known after the first
        assert [ask("u").status_code for _ in range(4)] == [200] * 4
        # What tells about the server is not counted.
        assert http.get(f"{served.url}/v1/models", headers=bearer("f")).status_code == 200
        assert served.service.metrics._counts[
            "requests_rejected_total", '{reason="rate_limit_exceeded"}'
        ] == 3  # fmt: skip


# --- S18: deadlines ------------------------------------------------------------------------------


@pytest.fixture
def held(model, codec):
    model = SlowModel(model)
    engine = Engine(model, codec, max_batch=1, max_waiting=1)
    with running(engine, limits=Limits(restarts=1)) as served:
        yield served, model
        model.failure = None
        model.release()


def change(served, **limits) -> None:
    served.service.limits = replace(served.service.limits, **limits)


@pytest.mark.parametrize("name", ["queue_seconds", "total_seconds"])
def test_an_answer_that_takes_too_long_is_504_and_its_row_is_freed(held, name):
    served, model = held
    change(served, **{name: 0.2})
    response = httpx.post(served.url + CHAT, json=ASK, timeout=30)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert served.engine._active[0].cancelled
    model.release()
    wait_for(lambda: served.engine.running == 0)


def test_a_stream_that_takes_too_long_ends_in_an_error_and_no_finish(held):
    served, model = held
    change(served, total_seconds=0.3, ping_seconds=0.05)
    with httpx.stream("POST", served.url + CHAT, json={**ASK, "stream": True}) as response:
        lines = [text for text in response.iter_lines() if text]
    assert ": ping" in lines
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["code"] == "deadline_exceeded"
    assert "[DONE]" not in "".join(lines) and '"stop"' not in "".join(lines)
    model.release()
    wait_for(lambda: served.engine.running == 0)


# --- S13, S14, S15: many, slow writers, slow readers ---------------------------------------------


def test_headers_that_do_not_come_are_not_waited_for(model, codec):
    limits = Limits(header_seconds=0.3, body_seconds=0.3, idle_seconds=0.5)
    with running(Engine(model, codec), limits=limits) as served:
        begun = time.monotonic()
        links = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(9)]
        for link in links[:6]:
            link.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert httpx.get(f"{served.url}/health").status_code == 200  # others are served
        for link in links:
            with contextlib.suppress(ConnectionResetError):
                assert link.recv(1) == b""
            link.close()
        assert time.monotonic() - begun < 20
        post = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as link:
            link.sendall(f"{post}Content-Length: 9999\r\n\r\n{{".encode())
            assert link.recv(4096).startswith(b"HTTP/1.1 408")
            with contextlib.suppress(OSError):
                for _ in range(300):  # what drips on is not read for ever
                    link.sendall(b"x")
                    time.sleep(0.1)
                raise AssertionError("the connection was not closed")


def test_more_connections_than_allowed_are_closed_and_the_others_work(model, codec):
    with running(Engine(model, codec), limits=Limits(connections=5)) as served:
        links = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(5)]
        wait_for(lambda: len(served.service.engine._active) == 0)
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as late:
            try:
                late.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert late.recv(1) == b""
            except OSError:
                pass
        links[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert links[0].recv(4096).startswith(b"HTTP/1.1 200")
        for link in links:
            link.close()


def test_a_reader_that_takes_nothing_is_cut_and_its_row_freed(codec):
    """The buffers of the two sockets fill with a long stream; the batch goes on meanwhile."""
    from tests.serving.parts import mute, random_decoder

    model = random_decoder(codec, context=4096, depth=1)
    mute(model, codec)
    limits = Limits(write_seconds=0.5)
    with running(Engine(model, codec), limits=limits) as served:
        served.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        link.connect(("127.0.0.1", served.port))
        body = json.dumps(
            {**ASK, "max_tokens": 4000, "stream": True, "logprobs": True, "top_logprobs": 20}
        ).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        link.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: served.engine.running == 1)
        answer = httpx.post(served.url + CHAT, json=ASK, timeout=60)
        assert answer.status_code == 200
        wait_for(lambda: served.engine.running == 0)
        cancelled = served.service.metrics._counts["requests_cancelled_total", ""]
        assert cancelled == 1  # it did not run to its end
        link.close()


# --- S20, S21, S26: death, and what is counted ---------------------------------------------------


def test_an_engine_that_dies_is_started_again_a_few_times(held, caplog):
    served, model = held
    for turn in range(2):
        model.failure = SystemExit("killed")
        model.release(1)
        response = httpx.post(served.url + CHAT, json=ASK, timeout=30)
        assert response.status_code == 503
        model.failure = None
        if turn == 0:
            wait_for(lambda: served.engine.alive)
            model.release()
            assert httpx.post(served.url + CHAT, json=ASK, timeout=30).status_code == 200
            assert httpx.get(f"{served.url}/health").status_code == 200
    wait_for(lambda: served.engine.died)  # once was allowed
    assert httpx.get(f"{served.url}/health").status_code == 503
    assert httpx.get(f"{served.url}/ready").status_code == 503
    assert "engine_restarts_total 1" in httpx.get(f"{served.url}/metrics").text


def test_a_start_that_fails_is_tried_again(model, codec, monkeypatch):
    slow = SlowModel(model)
    with running(Engine(slow, codec), limits=Limits(restarts=2)) as served:
        begin, tries = served.engine.start, []

        def start():
            tries.append(1)
            if len(tries) == 1:
                raise OSError("too many open files")
            begin()

        monkeypatch.setattr(served.engine, "start", start)
        slow.failure = SystemExit("killed")
        slow.release()
        assert httpx.post(served.url + CHAT, json=ASK, timeout=30).status_code == 503
        slow.failure = None
        wait_for(lambda: served.engine.alive)
        assert httpx.post(served.url + CHAT, json=ASK, timeout=30).status_code == 200


def metric(text: str, name: str) -> float:
    (found,) = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(name + " ")]
    return float(found)


def test_counts_are_those_of_what_was_sent(model, codec):
    with running(Engine(model, codec)) as served, httpx.Client(base_url=served.url) as http:
        prompts = 0
        for _ in range(3):
            prompts += http.post(CHAT, json=ASK).json()["usage"]["prompt_tokens"]
        http.post(CHAT, json={**ASK, "n": 0})
        http.post(CHAT, json={**ASK, "model": "x"})
        with http.stream("POST", CHAT, json={**ASK, "stream": True}) as response:
            list(response.iter_lines())
        wait_for(lambda: served.engine.running == 0)
        text = http.get("/metrics").text
        assert http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    m = "modelwright_"
    assert metric(text, m + "prompt_tokens_total") == prompts * 4 // 3
    assert metric(text, m + "generation_tokens_total") == 16
    assert metric(text, m + 'request_success_total{finished_reason="length"}') == 4
    assert metric(text, m + f'requests_total{{endpoint="{CHAT}",status="200"}}') == 4
    assert metric(text, m + 'requests_rejected_total{reason="invalid_value"}') == 1
    assert metric(text, m + 'requests_rejected_total{reason="model_not_found"}') == 1
    assert metric(text, m + "time_to_first_token_seconds_count") == 4
    assert metric(text, m + 'e2e_request_latency_seconds_bucket{le="+Inf"}') == 4
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert metric(text, m + gauge) == 0
    assert metric(text, m + "engine_heartbeat_seconds") < 30
    # Of every metric the text format wants a type, and no name twice.
    types = [row.split()[2] for row in text.splitlines() if row.startswith("# TYPE")]
    assert len(types) == len(set(types)) >= 15


# --- S25, R11: what is written down --------------------------------------------------------------


def test_the_log_has_a_line_a_request_and_no_word_of_it(model, codec, caplog, tmp_path):
    caplog.set_level(logging.INFO, "modelwright.serving.access")
    path = tmp_path / "keys"
    path.write_text(line("anna", "a-secret-key"))
    ask = {**ASK, "messages": [{"role": "user", "content": "my secret\r\nfake log \x1b[31mline"}]}
    with running(Engine(model, codec), keys_file=path) as served, httpx.Client() as http:
        headers = {**bearer("a-secret-key"), "x-request-id": "mine-1"}
        assert http.post(served.url + CHAT, json=ask, headers=headers).status_code == 200
        http.get(served.url + "/v1/%0d%0aX-%1b%5b31m", headers=bearer("a-secret-key"))
        http.request("GET\x21X", served.url + "/v1/models", headers=headers)
        bad = {**bearer("wrong-key"), "x-request-id": "x\x1b[31m y"}
        refused = http.get(served.url + "/v1/models", headers=bad)
        assert refused.headers["x-request-id"].startswith("req-")
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("access")]
    assert lines[0].startswith(f"mine-1 POST {CHAT} 200 ") and lines[0].endswith(" anna")
    assert len(lines) == 4
    for text in lines:
        assert text.isprintable() and "secret" not in text and "wrong-key" not in text
    assert "my secret" not in caplog.text


# --- S19, S22: ready, keys on every route, TLS ---------------------------------------------------


def test_a_server_that_was_told_to_stop_is_not_ready(model, codec):
    with running(Engine(model, codec)) as served:
        assert httpx.get(f"{served.url}/ready").status_code == 200
        served.service.draining = True
        told = httpx.get(f"{served.url}/ready")
        assert (told.status_code, told.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(f"{served.url}/health").status_code == 200


def test_open_paths_tell_nothing_of_the_model(model, codec):
    with running(Engine(model, codec), api_key="secret") as served:
        for path in sorted(OPEN_PATHS - {"/"}):
            assert "tiny" not in httpx.get(served.url + path).text


def test_it_serves_https(model, codec, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        capture_output=True, check=False, env={**os.environ, "OPENSSL_CONF": "/dev/null"},
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    with pytest.raises(ModelwrightError, match=r"^tls: ") as error:
        serve(Engine(model, codec), "tiny", port=0, tls=Tls(certificate, certificate))
    assert "\n" not in str(error.value)
    program = Path(__file__).with_name("https_server.py")
    command = [os.sys.executable, program, certificate, key]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in os.sys.path if p)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            url = process.stdout.readline().split(" at ")[1].split()[0]
            assert url.startswith("https://")
            context = ssl.create_default_context(cafile=certificate)
            url = url.replace("127.0.0.1", "localhost")
            with httpx.Client(verify=context, timeout=60) as http:
                assert http.post(url + CHAT, json=ASK).status_code == 200
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_an_abort_storm_leaves_the_others_alone(model, codec):
    """S17: many come and leave at once; one answer beside them is what it is alone."""
    engine = Engine(model, codec, max_batch=4, max_waiting=64)
    with running(engine) as served:
        ask = {**ASK, "max_tokens": 40, "temperature": 0}
        alone = httpx.post(served.url + CHAT, json=ask, timeout=60).json()["choices"]
        stop = threading.Event()

        def storm() -> None:
            while not stop.is_set():
                body = json.dumps({**ask, "stream": True}).encode()
                head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                with socket.create_connection(("127.0.0.1", served.port), timeout=30) as link:
                    link.sendall(head.encode() + body)
                    link.recv(64)

        threads = [threading.Thread(target=storm) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                beside = httpx.post(served.url + CHAT, json=ask, timeout=60)
                assert beside.status_code == 200
                assert beside.json()["choices"] == alone
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        wait_for(lambda: engine.running == 0 and engine.waiting == 0)
        assert served.service.gauges()["kv_cache_usage_perc"] == 0
        assert served.service.metrics._counts["requests_cancelled_total", ""] > 0


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_is_left_is_counted_as_far_as_it_came(model, codec, streamed):
    """S26, R12: who goes away in the middle has had the tokens until then, and pays for them."""
    slow = SlowModel(model)
    limits = Limits(tokens_a_minute=25)
    engine = Engine(slow, codec, max_batch=1, drafts=0)
    with running(engine, api_key="secret", limits=limits) as served:
        body = json.dumps({**ASK, "max_tokens": 60, "stream": streamed}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", served.port)) as link:
            link.sendall(head.encode() + body)
            slow.release(30)
            wait_for(lambda: slow.begun >= 30)
        wait_for(lambda: all(row.cancelled for row in engine._active))
        slow.release()
        wait_for(lambda: engine.running == 0)
        with httpx.Client(base_url=served.url, headers={"Authorization": "Bearer secret"}) as http:
            name = "modelwright_generation_tokens_total"
            wait_for(lambda: name in http.get("/metrics").text)
            assert 20 <= metric(http.get("/metrics").text, name) <= 32
            refused = http.post(CHAT, json=ASK)
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                429,
                "rate_limit_exceeded",
            )
