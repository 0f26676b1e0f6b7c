"""The heavy faults of a server: by hand, `pytest tests/slow/test_serving_load.py -s`.

MODELWRIGHT_SCALE (1) multiplies how much is done: 1 is what the release wants, 0.02 a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving.test_errors import FOREIGN

SCALE = float(os.environ.get("MODELWRIGHT_SCALE", "1"))
ROOT = Path(__file__).parents[2]
CAPACITY = 8 + 64  # answers at once, and requests that wait
PACES = 100  # looks at /health, so that a hundredth of them is one
CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4}
ROUTES = (CHAT, CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings")
TINY = {"model": "tiny"}
BODIES = {  # what is right at each path
    CHAT: ASK,
    "/v1/completions": {**TINY, "prompt": "fox", "max_tokens": 4},
    "/v1/responses": {**TINY, "input": "fox", "max_output_tokens": 16},
    "/v1/embeddings": {**TINY, "input": "fox"},
}
TOOL = {"type": "function", "function": {"name": "f"}}
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


DELAY = 1.0  # seconds at most, for the slowest of a hundred others, beside whatever there is
WARM = 2000  # requests until the allocator has all it needs; it grows in steps before


def scaled(count: int) -> int:
    return max(1, int(count * SCALE))


class Server:
    """A server in a process of its own, and what the system says of it."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        program = ROOT / "tests" / "slow" / "tiny_server.py"
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment
        )
        self.url = self.process.stdout.readline().split(" at ")[1].split()[0]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def kilobytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def gauges(self) -> dict[str, float]:
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name.removeprefix("modelwright_"): float(value) for name, _, value in pairs}

    def link(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@pytest.fixture
def server() -> Iterator[Server]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = Server()
    yield made
    made.process.terminate()
    assert made.process.wait(timeout=60) == 0
    made.process.stdout.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fuzzed(draw: random.Random, route: str) -> bytes:
    """A body that is nearly right: fields dropped, mistyped, at their extremes, bytes changed."""
    odd = [
        None,
        True,
        -1,
        0,
        1,
        2**63 - 1,
        2**63,
        1e308,
        "",
        "x" * 999,
        [],
        {},
        [[]],
        {"a": []},
        "\ud800",
    ]
    fields = [*BODIES[route], "n", "stop", "temperature", "top_p", "seed", "stream", "logprobs",
              "top_logprobs", "logit_bias", "response_format", "min_p", "prompt", "input", "tools",
              "tool_choice", "parallel_tool_calls", "echo", "text"]  # fmt: skip
    body: dict[str, object] = dict(BODIES[route])
    if route == CHAT and draw.random() < 0.1:
        body |= {"tools": [TOOL], "messages": [*ASK["messages"], {"role": "tool", "content": "x"}]}
    for _ in range(draw.randrange(4)):
        body[draw.choice(fields)] = draw.choice(odd)
    content = bytearray(json.dumps(body).encode())
    for _ in range(draw.choice([0, 0, 0, 1, 5])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def test_fuzzed_requests_never_make_the_server_fail(server):
    """S1, S5: 100,000 bodies, right and wrong; no 5xx, no text of a library, the same memory."""
    draw, statuses = random.Random(1), {}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        grown = 0
        for number in range(scaled(100_000)):
            if number == scaled(100_000) // 10:
                grown = server.kilobytes
            headers = {"content-type": "application/json"}
            route = draw.choice(ROUTES)
            response = http.post(route, content=fuzzed(draw, route), headers=headers)
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            assert response.status_code < 500, response.text
            if response.status_code != 200:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
                assert not FOREIGN.search(response.json()["error"]["message"]), response.text
    print(f"\n{statuses}, memory {grown} -> {server.kilobytes} kB")
    assert {200, 400} <= statuses.keys() or scaled(100_000) < 100  # else nothing was fuzzed
    assert server.kilobytes < 1.05 * grown + 10_000
    assert server.gauges()["num_requests_running"] == 0


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def paces(server: Server, count: int) -> list[float]:
    """Seconds that /health takes, each time on a connection of its own."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        with server.link() as link:
            link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert link.recv(4096).startswith(b"HTTP/1.1 200")
        found.append(time.perf_counter() - began)
    return found


def served_in_time(quiet: list[float], busy: list[float]) -> None:
    """Tell how long /health took alone and beside, and hold the latter against DELAY."""
    alone, beside = quantile(quiet, 0.99), quantile(busy, 0.99)
    print(f"\nhealth p99 {1000 * alone:.1f} ms alone, {1000 * beside:.1f} ms beside")
    assert beside < alone + DELAY


def closed(link: socket.socket, seconds: float) -> bool:
    """Whether the server closes a connection within so long; what it says before is passed over."""
    link.settimeout(seconds)
    with link:
        try:
            while link.recv(4096):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return True


def test_ten_thousand_connections_leave_the_others_alone(server):
    """S13: connections that say nothing are closed in time, and health answers meanwhile."""
    before, quiet = server.descriptors, paces(server, PACES)
    links = [server.link() for _ in range(scaled(9_900))]
    busy = paces(server, PACES)
    time.sleep(12)  # headers are due within ten seconds
    late = sum(not closed(link, 0.1) for link in links)
    print(f"\n{len(links)} connections, {late} open after 12 s")
    assert late == 0
    assert server.descriptors < before + 50
    served_in_time(quiet, busy)


def test_a_thousand_slow_clients_delay_nobody(server):
    """S14: headers and bodies at a byte a second."""
    quiet = paces(server, PACES)
    stop = threading.Event()
    links = [server.link() for _ in range(scaled(1000))]
    for link in links[::2]:
        link.sendall(f"{HEAD}Content-Length: 99\r\n\r\n".encode())

    def drip() -> None:
        while not stop.wait(1.0):
            for link in links:
                with contextlib.suppress(OSError):
                    link.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    busy = paces(server, PACES)
    time.sleep(33)  # headers are due within ten seconds, bodies within thirty
    stop.set()
    dripping.join()
    late = sum(not closed(link, 5) for link in links)
    print(f"\n{len(links)} slow clients, {late} open after 38 s")
    assert late == 0
    served_in_time(quiet, busy)


def test_of_three_times_the_capacity_what_is_over_is_refused(server):
    """S12: what is admitted is answered, the rest is 429 with Retry-After, and sooner than that."""

    def ask(http: httpx.Client) -> list[tuple[int, float, str]]:
        found = []
        for _ in range(scaled(20)):
            began = time.perf_counter()
            answer = http.post(CHAT, json={**ASK, "max_tokens": 30})
            seconds = time.perf_counter() - began
            found.append((answer.status_code, seconds, answer.headers.get("retry-after", "")))
        return found

    with (
        httpx.Client(base_url=server.url, timeout=120,
                     limits=httpx.Limits(max_connections=None)) as http,
        ThreadPoolExecutor(3 * CAPACITY) as crowd,
    ):  # fmt: skip
        each = [crowd.submit(ask, http) for _ in range(3 * CAPACITY)]
        found = [one for asked in each for one in asked.result()]  # and whatever went wrong there
    answered = [seconds for status, seconds, _ in found if status == 200]
    refused = [(seconds, again) for status, seconds, again in found if status == 429]
    assert len(answered) + len(refused) == len(found) == 3 * CAPACITY * scaled(20)
    assert len(answered) >= CAPACITY and refused and all(again for _, again in refused)
    told, taken = quantile([s for s, _ in refused], 0.5), quantile(answered, 0.5)
    print(f"\n{len(found)} asked, {len(refused)} refused, half of them within {1000 * told:.0f} ms;"
          f" half of the answers within {1000 * taken:.0f} ms")  # fmt: skip
    assert told < taken
    assert server.gauges()["num_requests_running"] == 0


def test_a_server_that_is_told_to_end_under_load_finishes_what_it_has(server):
    """S19: SIGTERM with streams under way; each is whole, and the server ends in time."""
    whole, begun = [], threading.Barrier(9)
    body = {**ASK, "max_tokens": 60, "stream": True}

    def follow() -> None:
        with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun.wait(timeout=60)
            whole.append("data: [DONE]" in list(lines))

    crowd = [threading.Thread(target=follow) for _ in range(8)]
    for one in crowd:
        one.start()
    begun.wait(timeout=60)
    server.process.terminate()
    began = time.monotonic()
    assert server.process.wait(timeout=40) == 0  # 30 seconds to drain, and 10
    for one in crowd:
        one.join()
    print(f"\n{len(whole)} streams, all whole: {all(whole)}; {time.monotonic() - began:.1f} s")
    assert whole == [True] * 8


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_everything_within_a_second(server, stream):
    """S16: at every moment of an answer."""
    draw = random.Random(2)
    for _ in range(scaled(1000)):
        body = json.dumps({**ASK, "max_tokens": 60, "stream": stream}).encode()
        content = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
        # Half of them ask wholly, so that an answer is under way when they leave.
        cut = draw.choice([draw.randrange(len(content) // 2, len(content)), len(content)])
        with server.link() as link:
            link.sendall(content[:cut])
            time.sleep(draw.choice([0, 0, 0.001, 0.01, 0.03]))
    time.sleep(1)
    gauges = server.gauges()
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    assert [gauges[name] for name in names] == [0, 0, 0]
    left = gauges.get("requests_cancelled_total", 0)
    print(f"\n{left:.0f} left in the middle of an answer")
    assert left or scaled(1000) < 20
    assert httpx.post(server.url + CHAT, json=ASK, timeout=5).status_code == 200


def test_an_hour_of_mixed_requests_takes_no_more_memory(server):
    """S29: after a tenth of the time, and WARM requests, resident memory and descriptors stay."""
    draw, until = random.Random(3), time.monotonic() + 3600 * SCALE
    warm_at, warm = time.monotonic() + 360 * SCALE, 0
    files, asked = server.descriptors, 0
    with httpx.Client(base_url=server.url, timeout=60) as http:
        while time.monotonic() < until:
            words = " ".join(draw.choices(["fox", "dog", "quick"], k=draw.randrange(1, 18)))
            varied = {"max_tokens": draw.randrange(1, 40), "logprobs": draw.random() < 0.3}
            body = {**ASK, **varied, "messages": [{"role": "user", "content": words}]}
            assert http.post(CHAT, json=body).status_code == 200
            asked += 1
            if not warm and time.monotonic() > warm_at and asked >= WARM:
                warm = server.kilobytes
    print(f"\n{asked} requests, memory {warm} -> {server.kilobytes} kB")
    assert warm, f"too short: {asked} requests, and {WARM} warm the server up"
    assert server.kilobytes < 1.01 * warm + 2000
    assert server.descriptors < files + 10
