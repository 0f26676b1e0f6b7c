"""Load on a server at a given rate, and how long its answers take: what ``bench-serve`` prints.

The load is open: requests begin at times of a Poisson process whatever has become of those before
them, as those of people who do not know each other. A closed loop, which waits for answers, would
ask a slow server less and so flatter it.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from modelwright.errors import MachineError, ModelwrightError

WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "it",
    "sleeps",
)
READ_BYTES = 1 << 20  # of a line of an answer


@dataclass(frozen=True)
class Load:
    """What is asked of a server.

    ``rate`` is of requests a second; a prompt has ``prompt_words`` words, the first
    ``shared_words`` of which are the same in all; ``seed`` decides words and times.
    """

    url: str
    rate: float = 2.0
    requests: int = 50
    prompt_words: int = 64
    shared_words: int = 0
    max_tokens: int = 64
    key: str | None = None
    seed: int = 0
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.requests < 1 or self.prompt_words < 1 or self.max_tokens < 1:
            raise ModelwrightError(
                "bench-serve: rate, requests, prompt words and tokens must be above 0"
            )
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelwrightError(f"{self.url}: an address like http://127.0.0.1:8000 is meant")


@dataclass
class Outcome:
    """One request: its status, seconds to its first text, between its texts, and in all.

    ``refusal`` is what the server said where it refused.
    """

    status: str = "no connection"
    refusal: str = ""
    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    total: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0


def run(load: Load) -> dict[str, object]:
    """Load a server and measure it: the figures by name, seconds and tokens a second.

    Raises:
        MachineError: there is no server.
        ModelwrightError: it refused every request as one that cannot be answered.
    """
    return asyncio.run(_run(load))


async def _run(load: Load) -> dict[str, object]:
    draw = random.Random(load.seed)
    model = await _model(load)
    shared = " ".join(draw.choices(WORDS, k=load.shared_words))
    began = time.perf_counter()
    at, tasks = 0.0, []
    for _ in range(load.requests):
        words = draw.choices(WORDS, k=max(1, load.prompt_words - load.shared_words))
        prompt = " ".join([shared, *words]).strip()
        tasks.append(asyncio.create_task(_later(load, model, prompt, began + at)))
        at += draw.expovariate(load.rate)
    outcomes = await asyncio.gather(*tasks)
    if all(one.status == "400" for one in outcomes):
        raise ModelwrightError(
            f"{load.url}: refused all {len(outcomes)} requests: {outcomes[0].refusal}; ask for less"
            " with --prompt-words and --max-tokens"
        )
    return summary(outcomes, time.perf_counter() - began)


def summary(outcomes: Sequence[Outcome], seconds: float) -> dict[str, object]:
    """The figures of requests that took ``seconds`` together."""
    done = [one for one in outcomes if one.status == "200"]
    gaps = [gap for one in done for gap in one.gaps]
    return {
        "requests": len(outcomes),
        "answered": len(done),
        "refused": dict(Counter(one.status for one in outcomes if one.status != "200")),
        "seconds": seconds,
        "requests_per_second": len(done) / seconds,
        "prompt_tokens_per_second": sum(one.prompt_tokens for one in done) / seconds,
        "tokens_per_second": sum(one.tokens for one in done) / seconds,
        "time_to_first_token": _quantiles([one.first for one in done]),
        "inter_token_latency": _quantiles(gaps),
        "latency": _quantiles([one.total for one in done]),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, the nearest value above; empty where there are none."""
    if not values:
        return {}
    ordered = sorted(values)
    at = min(len(ordered) - 1, int(0.99 * len(ordered)))
    return {"p50": statistics.median(ordered), "p99": ordered[at]}


async def _later(load: Load, model: str, prompt: str, at: float) -> Outcome:
    await asyncio.sleep(max(0.0, at - time.perf_counter()))
    outcome, began = Outcome(), time.perf_counter()
    try:
        async with asyncio.timeout(load.seconds):
            await _ask(load, model, prompt, outcome)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        if outcome.status in ("200", "no connection"):
            outcome.status = type(error).__name__
    outcome.total = time.perf_counter() - began
    return outcome


async def _ask(load: Load, model: str, prompt: str, outcome: Outcome) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": load.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = last = time.perf_counter()
    finished = False
    async for line in _lines(load, "POST", "/v1/chat/completions", json.dumps(body), outcome):
        if outcome.status != "200":
            outcome.refusal = outcome.refusal or _refusal(line)
        if outcome.status != "200" or not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            finished = True
            continue
        event = json.loads(line[6:])
        if event.get("usage"):
            outcome.tokens = event["usage"]["completion_tokens"]
            outcome.prompt_tokens = event["usage"]["prompt_tokens"]
        if any(choice["delta"].get("content") for choice in event.get("choices", ())):
            now = time.perf_counter()
            if outcome.first:
                outcome.gaps.append(now - last)
            else:
                outcome.first = now - began
            last = now
    if outcome.status == "200" and not finished:
        outcome.status = "cut off"  # a stream that fails ends without [DONE]


def _refusal(line: str) -> str:
    """The message of an error in OpenAI's shape, or the line itself."""
    try:
        return str(json.loads(line)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return line.strip()[:200]


async def _model(load: Load) -> str:
    """The name of the model that the server has."""
    outcome = Outcome()
    try:
        async with asyncio.timeout(30):
            text = "".join([line async for line in _lines(load, "GET", "/v1/models", "", outcome)])
            name: str = json.loads(text)["data"][0]["id"]
            return name
    except (OSError, EOFError, TimeoutError, ValueError, LookupError) as error:
        raise MachineError(
            f"{load.url}: no server answers there ({outcome.status}); start `modelwright serve`, or"
            " give its key in MODELWRIGHT_API_KEY"
        ) from error


async def _lines(
    load: Load, method: str, path: str, body: str, outcome: Outcome
) -> AsyncIterator[str]:
    """The lines of a response's body; notes its status."""
    parts = urlsplit(load.url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=secure, limit=READ_BYTES
    )
    try:
        content = body.encode()
        head = [
            f"{method} {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        ]
        if load.key:
            head.append(f"Authorization: Bearer {load.key}")
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        await writer.drain()
        outcome.status = (await reader.readline()).decode("latin-1").split()[1]
        chunked = False
        while (line := (await reader.readline()).strip().lower()) != b"":
            chunked |= line == b"transfer-encoding: chunked"
        async for text in _body(reader, chunked=chunked):
            yield text
    except IndexError as error:
        raise EOFError("the server closed the connection") from error
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[str]:
    if not chunked:
        yield (await reader.read()).decode()
        return
    held = b""
    while size := int(await reader.readline(), 16):
        held += await reader.readexactly(size)
        await reader.readline()
        *whole, held = held.split(b"\n")
        for line in whole:
            yield line.decode()
    yield held.decode()
