"""Counts and times of a server, as Prometheus reads them (text format 0.0.4).

The names are those that vLLM has made usual, with our prefix. Labels hold an endpoint, a reason or
a bound, never what a user wrote.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

PREFIX = "modelwright_"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)

COUNTERS = {
    "requests_total": "requests by endpoint and status",
    "prompt_tokens_total": "tokens read of prompts",
    "generation_tokens_total": "tokens written",
    "request_success_total": "answers by finished_reason",
    "requests_rejected_total": "requests refused by reason: their error's code",
    "requests_cancelled_total": "requests whose client left",
    "requests_kept_total": "requests kept on disk for training",
    "engine_restarts_total": "engines started again after they died",
}
HISTOGRAMS = {
    "time_to_first_token_seconds": ("from the request to its first text", SECONDS),
    "inter_token_latency_seconds": ("between two pieces of a text", SECONDS),
    "e2e_request_latency_seconds": ("from the request to its end", SECONDS),
    "request_queue_time_seconds": ("a text's, until it has a place", SECONDS),
    "request_inference_time_seconds": ("a text's, from there to its end", SECONDS),
    "request_time_per_output_token_seconds": ("of a text, behind its first piece", SECONDS),
    "request_prompt_tokens": ("tokens of a prompt", TOKENS),
    "request_generation_tokens": ("tokens of an answer", TOKENS),
}
GAUGES = {
    "num_requests_running": "requests that are being answered",
    "num_requests_waiting": "requests that wait for a place",
    "kv_cache_usage_perc": "share of the cache that holds tokens, 0 to 1",
    "prefix_cache_queries": "tokens of prompts looked for among beginnings read before",
    "prefix_cache_hits": "tokens of prompts found there",
    "engine_heartbeat_seconds": "since the engine's last step, or since it last looked for work",
}

COUNTED = ("prefix_cache_queries", "prefix_cache_hits")  # of these, what only grows in an engine


class Metrics:
    """Counters and histograms; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = defaultdict(float)
        self._buckets = {name: [0] * (len(b) + 1) for name, (_, b) in HISTOGRAMS.items()}
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count something."""
        with self._lock:
            self._counts[name, _labelled(labels)] += amount

    def observe(self, name: str, value: float) -> None:
        """Count a value in its histogram."""
        with self._lock:
            self._buckets[name][bisect_left(HISTOGRAMS[name][1], value)] += 1
            self._sums[name] += value

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of them, with what is so now, ``gauges`` by names of GAUGES."""
        lines: list[str] = []
        with self._lock:
            for name, about in COUNTERS.items():
                _head(lines, name, about, "counter")
                found = {k[1]: v for k, v in self._counts.items() if k[0] == name}
                lines += [f"{PREFIX}{name}{k} {v:g}" for k, v in sorted(found.items())]
            for name, (about, bounds) in HISTOGRAMS.items():
                _head(lines, name, about, "histogram")
                total = 0
                for bound, count in zip((*bounds, "+Inf"), self._buckets[name], strict=True):
                    total += count
                    lines.append(f'{PREFIX}{name}_bucket{{le="{bound}"}} {total}')
                lines.append(f"{PREFIX}{name}_sum {self._sums[name]:.9g}")
                lines.append(f"{PREFIX}{name}_count {total}")
        for name, value in gauges.items():
            _head(lines, name, GAUGES[name], "counter" if name in COUNTED else "gauge")
            lines.append(f"{PREFIX}{name} {value:.9g}")
        return "\n".join(lines) + "\n"


def _head(lines: list[str], name: str, about: str, kind: str) -> None:
    lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}"]


def _labelled(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
