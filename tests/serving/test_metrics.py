"""What is counted: all that the guide lists and nothing else, and times that add up."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx

from modelwright.serving.engine import Engine, Request
from modelwright.serving.metrics import COUNTED, COUNTERS, GAUGES, HISTOGRAMS, PREFIX
from modelwright.serving.sampling import SamplingParams
from tests.serving.parts import SlowModel, running, wait_for
from tests.serving.test_defence import metric

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "serving.md"
KINDS = {
    **{name: ("counter", about) for name, about in COUNTERS.items()},
    **{name: ("histogram", about) for name, (about, _) in HISTOGRAMS.items()},
    **{n: ("counter" if n in COUNTED else "gauge", about) for n, about in GAUGES.items()},
}
# What a panel made for vLLM asks for, behind its own prefix.
USUAL = {
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries",
    "prefix_cache_hits", "prompt_tokens_total", "generation_tokens_total", "request_success_total",
    "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_inference_time_seconds",
    "request_time_per_output_token_seconds", "request_prompt_tokens", "request_generation_tokens",
}  # fmt: skip


def test_the_guide_has_every_metric_with_its_kind():
    """The table is made of the lists: correct one of them, and copy what is shown."""
    rows = [f"| `{name}` | {kind} | {about} |" for name, (kind, about) in KINDS.items()]
    table = "\n".join(["| name | kind | |", "|---|---|---|", *rows])
    assert table in GUIDE.read_text(encoding="utf-8"), "\n" + table


def test_what_is_told_is_what_is_listed_and_has_the_usual_names(served):
    text = httpx.get(f"{served.url}/metrics").text
    types = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert types == [[PREFIX + name, kind] for name, (kind, _) in KINDS.items()]
    assert KINDS.keys() >= USUAL


def test_the_time_in_the_queue_is_that_until_there_is_a_place(model, codec):
    slow = SlowModel(model)
    engine = Engine(slow, codec, max_batch=1)
    done = {}
    with running(engine) as served:
        prompt, params = codec.tokens("Who?"), SamplingParams(max_tokens=4)
        told = {name: done.setdefault(name, []).append for name in ("first", "second")}
        engine.submit(Request(prompt, params), told["first"])
        wait_for(lambda: slow.begun)
        engine.submit(Request(prompt, params), told["second"])
        threading.Event().wait(0.2)
        slow.release()
        wait_for(lambda: engine.running == 0 and engine.waiting == 0 and len(done["second"]) > 1)
        first, second = (done[name][-1] for name in ("first", "second"))
        assert second.queued >= 0.2
        assert 0 <= first.queued <= first.seconds and second.queued <= second.seconds
        ask = {"model": "tiny", "prompt": "Who?", "max_tokens": 4}
        httpx.post(f"{served.url}/v1/completions", json=ask, timeout=60)
        text = httpx.get(f"{served.url}/metrics").text
        names = ("queue_time", "inference_time", "time_per_output_token")
        for name in names:
            assert metric(text, f"{PREFIX}request_{name}_seconds_count") == 1
        total = sum(metric(text, f"{PREFIX}request_{n}_seconds_sum") for n in names[:2])
        assert 0 < total <= metric(text, f"{PREFIX}e2e_request_latency_seconds_sum") + 0.01
