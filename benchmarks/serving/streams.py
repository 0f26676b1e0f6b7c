"""Sixteen streams over HTTP: all tokens a second, and the wait for the first.

Sixteen clients ask one after another, three questions each, of 64 tokens with answers of 64; no two
questions begin alike, so that nothing is read from a kept prefix.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.run import Row
from benchmarks.serving.single import HUGE, REPEATS, measured
from benchmarks.serving.weights import PEERS, folder_of, prepare
from benchmarks.training.measure import QUIET, Result, Script, in_turns
from modelwright import runtime
from modelwright.errors import MachineError
from modelwright.exporting.gguf.tools import tool

CLIENTS, ROUNDS, PROMPT, ANSWER = 16, 3, 64, 64
START = 300.0  # seconds to have read the weights


def rows(quick: bool) -> list[Row]:
    """At equal bits, and beside a batch of transformers."""
    shape = "125M" if quick else "1.1B"
    prepare(shape)
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    scripts: dict[str, Script] = {}
    for kind, stored in PEERS.items():
        scripts[f"ours {kind}"] = partial(_streams, "ours", shape, kind)
        scripts[f"llama-server {stored}"] = partial(_streams, "llama-server", shape, kind)
    scripts["transformers"] = partial(measured, "transformers", shape, "bfloat16", "batch")
    taken = in_turns(scripts, repeats)

    def median(who: str, what: str) -> float:
        return statistics.median(float(one[what]) for one in taken[who])

    found = []
    times = "one run" if repeats == 1 else f"median of {repeats}"
    for kind, stored in PEERS.items():
        who = f"llama-server {stored}"
        for what, bar, named in (
            ("rate", 1.5, "tokens/s of 16 streams"),
            ("p50", 0.5, "seconds to the first token, p50"),
            ("p99", 0.5, "seconds to the first token, p99"),
        ):
            one, other = median(f"ours {kind}", what), median(who, what)
            ratio = one / other
            holds = ratio >= bar if what == "rate" else ratio <= bar
            text = f"{shape} {kind} against {who}: {named}, {times}"
            sign = ">=" if what == "rate" else "<="
            found.append(Row(text, round(one, 3), round(other, 3), ratio, f"{sign} {bar}", holds))
    one, other = median("ours int4", "rate"), median("transformers", "rate")
    text = f"{shape} int4 against transformers bfloat16, a batch of 16: tokens/s, {times}"
    found.append(Row(text, round(one, 1), round(other, 1), one / other, ">= 4", one >= 4 * other))
    return found


def _streams(who: str, shape: str, kind: str) -> Result:
    with _server(who, shape, kind) as port:
        ask = partial(_asked, who, port)
        ask(random.Random(0))  # what is made at the first request
        waits: list[float] = []
        threads = [
            threading.Thread(target=_client, args=(ask, random.Random(i + 1), waits))
            for i in range(CLIENTS)
        ]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
    if len(waits) != CLIENTS * ROUNDS:
        raise MachineError(f"bench: {who} left {CLIENTS * ROUNDS - len(waits)} requests unanswered")
    ordered = sorted(waits)
    print(f"  {who} {kind}: {CLIENTS * ROUNDS * ANSWER / seconds:.1f} tokens/s", file=sys.stderr)
    return {
        "rate": CLIENTS * ROUNDS * ANSWER / seconds,
        "p50": statistics.median(ordered),
        "p99": ordered[-1],  # of 48
    }


def _client(ask: partial[float], drawn: random.Random, waits: list[float]) -> None:
    for _ in range(ROUNDS):
        seconds = ask(drawn)
        waits.append(seconds)


def _asked(who: str, port: int, drawn: random.Random) -> float:
    """Ask one question to its end; the seconds to the first piece of its answer."""
    prompt = [drawn.randrange(3, 32000) for _ in range(PROMPT)]
    body: dict[str, object]
    if who == "ours":
        path = "/v1/completions"
        body = {"model": "bench", "prompt": " ".join(f"t{t}" for t in prompt)}
        body |= {"max_tokens": ANSWER, "temperature": 0, "stream": True}
    else:
        path, body = "/completion", {"prompt": prompt, "n_predict": ANSWER, "temperature": 0}
        body |= {"stream": True, "ignore_eos": True, "cache_prompt": False}
    began, first, pieces = time.perf_counter(), 0.0, 0
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = link.getresponse()
    if answer.status != 200:
        raise MachineError(f"bench: {who} says {answer.status}: {answer.read(200)!r}")
    for line in answer:
        if line.startswith(b"data: {"):
            pieces += 1
            first = first or time.perf_counter() - began
    link.close()
    if pieces < ANSWER // 2:
        raise MachineError(f"bench: {who} wrote {pieces} pieces where {ANSWER} tokens were asked")
    return first


@contextmanager
def _server(who: str, shape: str, kind: str) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    if who == "ours":
        command = [sys.executable, "-m", "benchmarks.serving.host", shape, kind, str(port)]
    else:
        command = _llama_server(folder_of(shape) / f"{PEERS[kind]}.gguf", port)
    environment = {**os.environ, **QUIET, **HUGE}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + START
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > until:
                raise MachineError(f"bench: the server of {who} does not start")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _llama_server(model: Path, port: int) -> list[str]:
    program = tool("llama-server")
    if program is None:
        raise MachineError("bench: llama-server is not there; set MODELWRIGHT_LLAMA_CPP")
    threads = str(runtime.cores())
    command = [str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", threads, "--threads-batch", threads, "--no-webui"]
    return [
        *command,
        "--parallel",
        str(CLIENTS),
        "--ctx-size",
        str(CLIENTS * 2 * (PROMPT + ANSWER)),
    ]


def _healthy(port: int) -> bool:
    try:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        link.request("GET", "/health")
        return link.getresponse().status == 200
    except OSError:
        return False
