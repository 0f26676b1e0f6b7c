"""The commands around a server: ``serve``'s options, ``bench-serve`` and ``new-key``."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

from modelwright.errors import EXIT_OK, ModelwrightError
from modelwright.export_commands import add_weights
from modelwright.places import existing_run

KEY_VARIABLE = "MODELWRIGHT_API_KEY"

Commands = Any  # what argparse gives for subcommands, which has no public name


def add_serve(commands: Commands) -> None:
    """``modelwright serve RUN``: answer requests over HTTP."""
    serve = commands.add_parser("serve", help="an OpenAI-compatible server and a chat page")
    serve.add_argument("run", type=existing_run)
    serve.add_argument("--host", default="127.0.0.1", help="another address needs a key")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    serve.add_argument("--stage", choices=("train", "tune"))
    serve.add_argument("--api-key", help=f"also {KEY_VARIABLE}; without, only this machine may ask")
    serve.add_argument("--keys", type=Path, help="a file of keys, see `modelwright new-key`")
    serve.add_argument("--requests-a-minute", type=int, default=0, help="of a key; 0: no limit")
    serve.add_argument("--tokens-a-minute", type=int, default=0, help="of a key; 0: no limit")
    serve.add_argument("--tls-certificate", type=Path, help="PEM, with its chain: serves HTTPS")
    serve.add_argument("--tls-key", type=Path, help="PEM, of the certificate")
    serve.add_argument("--max-batch", type=int, default=8, help="answers written at once (8)")
    serve.add_argument("--max-waiting", type=int, default=64, help="requests that wait (64)")
    serve.add_argument("--drafts", type=int, default=0, help="tokens looked up ahead, such as 4")
    serve.add_argument(
        "--reproducible", action="store_true", help="the same bits whoever else asks; slower"
    )
    serve.add_argument("--access-log", action="store_true", help="a line a request on stderr")
    add_weights(serve)
    serve.set_defaults(work=_serve, terminable=True)


def add_bench_serve(commands: Commands) -> None:
    """``modelwright bench-serve URL``: load a running server and measure its answers."""
    bench = commands.add_parser(
        "bench-serve",
        help="load a running server at a rate; throughput, time to first token, latencies",
    )
    bench.add_argument("url", help="such as http://127.0.0.1:8000; any OpenAI-compatible server")
    bench.add_argument("--rate", type=float, default=2.0, help="requests a second (2)")
    bench.add_argument("--requests", type=int, default=50, help="how many (50)")
    bench.add_argument("--prompt-words", type=int, default=64, help="words of a prompt (64)")
    bench.add_argument("--shared-words", type=int, default=0, help="of these, the same in all (0)")
    bench.add_argument("--max-tokens", type=int, default=64, help="of an answer (64)")
    bench.add_argument("--seed", type=int, default=0, help="of words and times")
    bench.add_argument("--json", action="store_true", help="the figures as JSON")
    bench.set_defaults(work=_bench)


def add_new_key(commands: Commands) -> None:
    """``modelwright new-key NAME FILE``: make a key for a client of a server."""
    key = commands.add_parser("new-key", help="make a key, and add its hash to a file for `serve`")
    key.add_argument("name", help="of the client: letters, digits, dots and dashes")
    key.add_argument("file", type=Path, help="what `serve --keys` is given; made where absent")
    key.add_argument("--requests", type=int, default=0, help="a minute; 0: no limit")
    key.add_argument("--tokens", type=int, default=0, help="a minute; 0: no limit")
    key.set_defaults(work=_new_key)


def _bench(options: argparse.Namespace) -> int:
    """Load a server, print the figures."""
    from modelwright.serving.load import Load, run  # noqa: PLC0415

    figures = run(
        Load(
            url=options.url,
            rate=options.rate,
            requests=options.requests,
            prompt_words=options.prompt_words,
            shared_words=options.shared_words,
            max_tokens=options.max_tokens,
            key=os.environ.get(KEY_VARIABLE) or None,
            seed=options.seed,
        )
    )
    if options.json:
        print(json.dumps(figures))
        return EXIT_OK
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):>26}  {_shown(value)}")
    return EXIT_OK


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k} {_shown(v)}" for k, v in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _new_key(options: argparse.Namespace) -> int:
    """Make a key; its hash goes to the file, itself to the one who asked."""
    from modelwright.serving.keys import add_key  # noqa: PLC0415

    print(add_key(options.file, options.name, options.requests, options.tokens))
    return EXIT_OK


def _serve(options: argparse.Namespace) -> int:
    """Answer requests until a signal."""
    from modelwright import api  # noqa: PLC0415
    from modelwright.serving.hosting import Tls  # noqa: PLC0415
    from modelwright.serving.limits import Limits  # noqa: PLC0415
    from modelwright.serving.server import serve  # noqa: PLC0415

    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ModelwrightError("--tls-certificate, --tls-key: give both or neither")
    tls = Tls(options.tls_certificate, options.tls_key) if options.tls_key else None
    if options.access_log:
        _show_access()
    model = api.load(options.run, options.stage, weights=options.weights)
    engine = model.answerer.server(
        max_batch=options.max_batch,
        max_waiting=options.max_waiting,
        drafts=options.drafts,
        reproducible=options.reproducible,
    )
    serve(
        engine,
        options.run.resolve().name,
        options.host,
        options.port,
        options.api_key or os.environ.get(KEY_VARIABLE) or None,
        keys_file=options.keys,
        limits=Limits(
            requests_a_minute=options.requests_a_minute, tokens_a_minute=options.tokens_a_minute
        ),
        tls=tls,
    )
    return EXIT_OK


def _show_access() -> None:
    """A line a request on stderr."""
    from modelwright.serving.guard import access  # noqa: PLC0415

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False
