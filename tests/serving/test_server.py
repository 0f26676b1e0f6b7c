"""The server at its limits: bad bodies, strangers, disconnects, overload, failure, the end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import MachineError, ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.guard import OPEN_PATHS
from modelwright.serving.hosting import listen
from modelwright.serving.limits import Limits
from modelwright.serving.server import build_app, serve
from tests.serving.parts import SlowModel, running, wait_for

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4}


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def refused(response: httpx.Response, status: int) -> dict:
    """The error of a response that has the status and OpenAI's shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and "\n" not in error["message"]
    assert error["code"] is None or isinstance(error["code"], str)
    assert re.fullmatch("req-[0-9a-f]{16}", response.headers["x-request-id"])
    assert "Traceback" not in response.text and "pydantic" not in response.text
    return error


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"null", b"\xff\xfe{}", b'{"model": NaN}',
     b'{"temperature": 1e999}',
     b"[" * 100_000, b'{"a":' * 100_000, b'{"seed": ' + b"9" * 6000 + b"}",
     b'{"model": "tiny", "model": "tiny"}'],
    ids=lambda b: b[:14].decode("latin-1"),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_400(http, body):
    response = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert refused(response, 400)["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("change", "param"),
    [({"model": 3}, "model"), ({"model": "x" * 300}, "model"),
     ({"messages": []}, "messages"), ({"messages": None}, "messages"),
     ({"messages": [ASK["messages"][0]] * 257}, "messages"),
     ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
     ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
     ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
     ({"messages": [{"role": "user", "content": "x" * (1 << 20) + "y"}]}, "messages[0].content"),
     ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
     ({"n": 5}, "n"), ({"n": 0}, "n"), ({"n": True}, "n"), ({"n": "1"}, "n"),
     ({"stop": ["a"] * 5}, "stop"), ({"stop": ""}, "stop[0]"), ({"stop": [1]}, "stop[0]"),
     ({"max_tokens": 0}, "max_tokens"), ({"max_completion_tokens": -1}, "max_completion_tokens"),
     ({"max_tokens": 10**30}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
     ({"temperature": 2.1}, "temperature"), ({"temperature": -1}, "temperature"),
     ({"top_p": 0}, "top_p"), ({"top_p": 1.01}, "top_p"), ({"seed": 2**63}, "seed"),
     ({"stream": "yes"}, "stream"), ({"stream_options": {"include_usage": 1}},
                                     "stream_options.include_usage"),
     ({"logprobs": 1}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"),
     ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"), ({"tools": [{}]}, "tools[0].type"),
     ({"response_format": {"type": "xml"}}, "response_format.type"),
     ({"response_format": {"type": "regex"}}, "response_format"),
     ({"response_format": {"type": "regex", "regex": "("}}, "response_format"),
     ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
      "response_format.json_schema.schema"),
     ({"response_format": {"type": "json_schema",
                           "json_schema": {"name": "a", "schema": {"type": 3}}}},
      "response_format"),
     ({"presence_penalty": 2.5}, "presence_penalty"), ({"min_p": -1}, "min_p"),
     ({"frequency_penalty": "a"}, "frequency_penalty"),
     ({"repetition_penalty": 0}, "repetition_penalty"),
     ({"repetition_penalty": 5e-324}, "repetition_penalty"),
     ({"logit_bias": {"x": 5}}, "logit_bias.x"), ({"logit_bias": {"1": 101}}, "logit_bias.1"),
     ({"logit_bias": {"300000": 5}}, "logit_bias"), ({"best_of": 2}, "best_of"),
     ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias")],
    ids=str,
)  # fmt: skip
def test_a_wrong_field_is_400_and_named(http, change, param):
    error = refused(http.post(CHAT, json={**ASK, **change}), 400)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert error["type"] == "invalid_request_error"


def test_half_a_character_is_400_and_a_whole_one_is_not(http):
    for content, status in (("\ud800", 400), ("\udd8a\ud83e", 400), ("🦊", 200)):
        body = json.dumps({**ASK, "messages": [{"role": "user", "content": content}]})
        response = http.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert response.status_code == status


def test_missing_fields_are_named(http):
    assert refused(http.post(CHAT, json={"model": "tiny"}), 400)["param"] == "messages"
    assert refused(http.post("/v1/completions", json={"model": "tiny"}), 400)["param"] == "prompt"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
fields = ["model", "messages", "n", "stop", "max_tokens", "temperature", "top_p", "seed", "stream",
          "stream_options", "user", "logprobs", "tools", "tool_choice"]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(fields), values, max_size=5))
def test_no_body_makes_the_server_fail(served, change):
    response = httpx.post(served.url + CHAT, json={**ASK, **change}, timeout=30)
    if response.status_code != 200:
        assert response.status_code in (400, 404)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_only_plain_json_bodies_are_read(http):
    for headers in ({"content-type": "text/plain"}, {"content-type": "multipart/form-data"},
                    {"content-type": "application/json", "content-encoding": "gzip"},
                    {}):  # fmt: skip
        refused(http.post(CHAT, content=json.dumps(ASK), headers=headers), 415)


def test_paths_and_methods_that_do_not_exist(http):
    assert refused(http.get("/v1/nothing"), 404)["type"] == "not_found_error"
    refused(http.get(CHAT), 405)
    refused(http.delete("/v1/models/tiny"), 405)


def raw(port: int, head: str, body: bytes = b"") -> bytes:
    """What the server answers to these bytes, read while they are still being sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(head.encode() + body)
        return link.recv(65536)


POST = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_an_announced_body_that_is_too_large_is_not_read(served):
    head = f"{POST}Content-Length: {Limits.body_bytes + 1}\r\n\r\n"
    assert raw(served.port, head).startswith(b"HTTP/1.1 413")  # not one byte of it was sent


def test_an_unannounced_body_is_cut_at_the_limit(served):
    def chunks(total):
        for _ in range(total // 65536):
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    url = served.url + CHAT
    refused(httpx.post(url, content=chunks(Limits.body_bytes + 65536), headers=headers), 413)
    refused(httpx.post(url, content=chunks(Limits.body_bytes), headers=headers), 400)


def test_headers_without_end_are_refused(served):
    assert raw(served.port, POST, b"X: " + b"x" * (1 << 17)).startswith(b"HTTP/1.1 400")


LOCAL = ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:80", "LOCALHOST"]
FOREIGN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1",
           "localhost:80@evil.example", "", "localhost/x", "localhost:port"]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "PUT"])
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", CHAT])
def test_strangers_are_403_on_every_path_and_method(http, method, path):
    for host in FOREIGN:
        refused(http.request(method, path, headers={"host": host}), 403)
    for origin in ["https://evil.example", "null", "http://localhost.evil.example:80", "file://"]:
        refused(http.request(method, path, headers={"origin": origin}), 403)
    for host in LOCAL:
        headers = {"host": host, "origin": f"http://{host}"}
        assert http.request(method, path, headers=headers).status_code != 403


def test_every_route_but_the_open_ones_needs_the_key(model, codec):
    app = build_app(Engine(model, codec), model_name="tiny", api_key="secret")
    paths = [route.path.replace("{name:path}", "tiny") for route in app.routes]
    with running(Engine(model, codec), api_key="secret") as served, httpx.Client() as http:
        for path in [*paths, "/v1/nothing", "/health/", "//"]:
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                for key in (None, "Bearer wrong", "Bearer", "secret", "Basic secret"):
                    headers = {"authorization": key} if key else {}
                    response = http.request(method, served.url + path, headers=headers)
                    if path in OPEN_PATHS:
                        assert response.status_code in (200, 405)
                    else:
                        assert refused(response, 401)["code"] == "invalid_api_key"
        right = {"authorization": "Bearer secret", "host": "my.server.example"}
        assert httpx.get(f"{served.url}/v1/models", headers=right).status_code == 200
        answer = httpx.post(served.url + CHAT, json=ASK, headers=right)
        assert answer.json()["usage"]["completion_tokens"] == 4


def test_a_key_may_come_in_the_headers_of_other_services(model, codec):
    dummy = {"authorization": "Bearer unused"}  # some clients always send one
    with running(Engine(model, codec), api_key="secret") as served, httpx.Client() as http:
        url = f"{served.url}/v1/models"
        for name in ("api-key", "x-api-key"):
            assert http.get(url, headers={name: "secret"}).status_code == 200
            assert http.get(url, headers={**dummy, name: "secret"}).status_code == 200
            for wrong in ("", "wrong", "Bearer secret", "secre", "secrets"):
                error = refused(http.get(url, headers={name: wrong}), 401)
                assert error["code"] == "invalid_api_key"
            refused(http.get(url, headers={**dummy, name: "wrong"}), 401)
        made = http.get(f"{served.url}/openapi.json", headers={"x-api-key": "secret"}).json()
        schemes = made["components"]["securitySchemes"]
        assert [one.get("name") for one in schemes.values()] == [None, "api-key", "x-api-key"]
        wanted = made["paths"]["/v1/chat/completions"]["post"]["security"]
        assert [set(one) for one in wanted] == [{"key"}, {"api-key"}, {"x-api-key"}]


@pytest.mark.parametrize("key", ["", " ", "two words", "schlüssel", "a\nb"])
def test_a_key_that_no_client_can_send_is_refused(model, codec, key):
    with pytest.raises(ModelwrightError, match=r"^api key: it must be visible ASCII"):
        build_app(Engine(model, codec), model_name="tiny", api_key=key)


def test_the_page_can_do_nothing_but_talk_to_its_server(http):
    page = http.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)
    assert "innerHTML" not in page.text
    assert re.search(r"\son\w+=", page.text) is None


# --- overload, disconnects, failure ------------------------------------------------------------


@pytest.fixture
def held(model, codec):
    """A server whose model makes the steps that the test releases: one row, one waiting."""
    model = SlowModel(model)
    engine = Engine(model, codec, max_batch=1, max_waiting=1)
    with running(engine, limits=Limits(restarts=0)) as served:
        yield served, model
        model.failure = None
        model.release()


def sent(served, **change) -> socket.socket:
    """A connection with a request on its way; nothing read."""
    body = json.dumps({**ASK, "max_tokens": 50, **change}).encode()
    link = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    link.sendall(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return link


def test_over_capacity_is_429_and_says_when_to_come_back(held):
    served, _ = held
    with sent(served):
        wait_for(lambda: served.engine.running == 1)
        with sent(served):
            wait_for(lambda: served.engine.waiting == 1)
            response = httpx.post(served.url + CHAT, json=ASK)
            assert refused(response, 429)["type"] == "rate_limit_error"
            assert response.headers["retry-after"] == "1"
            health = httpx.get(served.url + "/health")  # the event loop is free meanwhile
            assert health.json() == {"status": "ok", "running": 1, "waiting": 1}
        wait_for(lambda: any(row.cancelled for row in served.engine._waiting))


def test_a_client_that_leaves_within_its_body_is_no_failure(held, caplog):
    served, _ = held
    with socket.create_connection(("127.0.0.1", served.port)) as link:
        link.sendall(f"{POST}Content-Length: 900\r\n\r\n{{".encode())
        wait_for(lambda: "499" in httpx.get(f"{served.url}/metrics").text or link.close())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_row(held, stream):
    served, model = held
    link = sent(served, stream=stream)
    wait_for(lambda: served.engine.running == 1)
    row = served.engine._active[0]
    model.release(3)
    wait_for(lambda: len(row.tokens) == 3 and model.begun == 4)
    link.close()
    wait_for(lambda: row.cancelled)
    model.release(1)  # the step that was under way, not one more
    wait_for(lambda: served.engine.running == 0)
    assert len(row.tokens) == 4


def test_a_refused_choice_takes_the_others_back(held):
    served, _ = held
    refused(httpx.post(served.url + CHAT, json={**ASK, "n": 4}), 429)
    engine = served.engine
    wait_for(lambda: all(row.cancelled for row in [*engine._active, *engine._waiting]))


def test_a_failure_before_the_answer_is_500_without_details(held, caplog):
    served, model = held
    model.failure = RuntimeError("secret detail")
    model.release()
    response = httpx.post(served.url + CHAT, json=ASK)
    error = refused(response, 500)
    assert response.headers["x-request-id"] in error["message"]
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text and response.headers["x-request-id"] in caplog.text


def test_a_failure_within_a_stream_is_an_event_and_no_finish(held, caplog):
    served, model = held
    with httpx.stream("POST", served.url + CHAT, json={**ASK, "stream": True}) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines)[6:])["choices"][0]["delta"]["role"] == "assistant"
        model.failure = RuntimeError("secret detail")
        model.release()
        rest = "\n".join(lines)
    events = [json.loads(line[6:]) for line in rest.splitlines() if line]
    assert events[-1]["error"]["code"] == "internal_error"
    assert "secret detail" not in rest and "[DONE]" not in rest and '"stop"' not in rest
    assert "secret detail" in caplog.text


def test_a_silent_stream_is_kept_open_by_comments(held):
    served, _ = held
    served.service.limits = replace(served.service.limits, ping_seconds=0.02)
    with httpx.stream("POST", served.url + CHAT, json={**ASK, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        assert next(lines).startswith("data: ")
        assert [next(lines) for _ in range(3)] == [": ping"] * 3


def test_health_tells_the_truth_about_a_dead_engine(held, caplog):
    served, model = held
    model.failure = SystemExit("killed")
    model.release()
    error = refused(httpx.post(served.url + CHAT, json=ASK), 503)
    assert error["code"] == "engine_stopped"
    wait_for(lambda: not served.engine.alive)
    refused(httpx.get(served.url + "/health"), 503)
    refused(httpx.post(served.url + CHAT, json=ASK), 503)


# --- serve() as a process ------------------------------------------------------------------------

PROGRAM = """
import sys
import time
sys.path.insert(0, sys.argv[1])
from modelwright.data.codecs.text import Codec
from modelwright.serving.engine import Engine
from modelwright.serving.server import serve
from modelwright.types import Example, text_turn
from tests.serving.parts import mute, random_decoder
codec = Codec.fit([Example((text_turn("document", "The quick brown fox. " * 9),))], vocabulary=270)
model = random_decoder(codec)
mute(model, codec)
head = model.head
model.head = lambda hidden: time.sleep(0.02) or head(hidden)
serve(Engine(model, codec), "tiny", port=0)
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_finish_and_ends_cleanly(number, request):
    command = [sys.executable, "-c", PROGRAM, str(request.config.rootpath)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        found = re.search(
            r"serving tiny at (http://127\.0\.0\.1:(\d+)) ", process.stdout.readline()
        )
        assert found, process.stderr.read()
        url = found[1]
        body = {**ASK, "max_tokens": 60, "stream": True}
        with httpx.stream("POST", url + CHAT, json=body, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(number)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, "ended", "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health")


def test_tokens_are_sent_without_delay():
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's delay on


def test_a_port_in_use_is_one_line(model, codec, served):
    with pytest.raises(MachineError) as error:
        serve(Engine(model, codec), "tiny", port=served.port)
    line = f"port {served.port} on 127.0.0.1 is in use; choose another with --port"
    assert str(error.value) == line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_others_are_only_served_with_a_key(model, codec, host):
    with pytest.raises(ModelwrightError, match=r"^host: .* set an API key"):
        serve(Engine(model, codec), "tiny", host=host, port=0)


def test_an_address_of_another_machine_is_one_line(model, codec):
    with pytest.raises(MachineError, match=r"^port 80 on 192\.0\.2\.1 cannot be opened"):
        serve(Engine(model, codec), "tiny", host="192.0.2.1", port=80, api_key="k")
    with pytest.raises(ModelwrightError, match=r"^host: no such host is no address"):
        serve(Engine(model, codec), "tiny", host="no such host", api_key="k")
