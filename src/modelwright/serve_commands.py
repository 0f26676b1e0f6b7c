"""The commands around a server: ``serve``, ``deploy``, ``bench-serve`` and ``new-key``."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

from modelwright.errors import EXIT_OK, ModelwrightError
from modelwright.export_commands import DTYPES, add_weights
from modelwright.places import existing_run

KEY_VARIABLE = "MODELWRIGHT_API_KEY"
ADMIN_VARIABLE = "MODELWRIGHT_ADMIN_KEY"

Commands = Any  # what argparse gives for subcommands, which has no public name


def add_serve(commands: Commands) -> None:
    """``modelwright serve RUN``: answer requests over HTTP."""
    serve = commands.add_parser("serve", help="an OpenAI-compatible server and a chat page")
    serve.add_argument("run", type=existing_run)
    serve.add_argument("--name", help="what clients call the model (the run's folder)")
    serve.add_argument("--host", default="127.0.0.1", help="another address needs a key")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    serve.add_argument("--stage", choices=("train", "tune"))
    serve.add_argument("--one-process", action="store_true", help="the engine in the server's own")
    serve.add_argument("--admin-key", help=f"also {ADMIN_VARIABLE}; opens /admin: load and unload")
    serve.add_argument("--runs", type=Path, help="the folder that runs are loaded from (RUN's)")
    serve.add_argument(
        "--adapter", action="append", default=[], metavar="RUN", help="a run, or PEFT's; beside RUN"
    )
    serve.add_argument("--api-key", help=f"also {KEY_VARIABLE}; without, only this machine may ask")
    serve.add_argument("--keys", type=Path, help="a file of keys, see `modelwright new-key`")
    serve.add_argument("--requests-a-minute", type=int, help="of a key (0: no limit)")
    serve.add_argument("--tokens-a-minute", type=int, help="of a key (0: no limit)")
    serve.add_argument("--limits", type=Path, metavar="FILE", help="YAML; names are in the guide")
    serve.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="connections=500"
    )
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="a name of the server's"
    )
    serve.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN",
        help="whose pages may ask: https://chat.example",
    )  # fmt: skip
    serve.add_argument("--tls-certificate", type=Path, help="PEM, with its chain: serves HTTPS")
    serve.add_argument("--tls-key", type=Path, help="PEM, of the certificate")
    serve.add_argument("--max-batch", type=int, default=8, help="answers written at once (8)")
    serve.add_argument("--max-waiting", type=int, default=64, help="requests that wait (64)")
    serve.add_argument("--drafts", type=int, default=0, help="tokens looked up ahead, such as 4")
    serve.add_argument("--cache-tokens", type=int, default=0, help="of all answers together")
    serve.add_argument(
        "--reproducible", action="store_true", help="the same bits whoever else asks; slower"
    )
    serve.add_argument("--keep-requests", type=Path, metavar="FOLDER", help="for training, masked")
    serve.add_argument("--keep-share", type=float, default=1.0, help="of the answers (1)")
    serve.add_argument("--access-log", action="store_true", help="a line a request on stderr")
    add_weights(serve)
    serve.set_defaults(work=_serve, terminable=True)


def add_deploy(commands: Commands) -> None:
    """``modelwright deploy RUN OUT``: hand a run over to an engine that serves it."""
    text = "write what another engine needs to serve a run, start it, and compare its answers"
    deploy = commands.add_parser("deploy", help=text, description=text)
    deploy.add_argument("run", type=existing_run)
    deploy.add_argument("out", type=Path, help="a folder that does not exist yet")
    deploy.add_argument("--to", required=True, help="vllm | llama.cpp | ray-serve | docker")
    deploy.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    deploy.add_argument("--dtype", choices=DTYPES, help="of exported weights")
    deploy.add_argument("--quantize", metavar="TYPE", help="of exported weights, as of export")
    add_weights(deploy)
    deploy.add_argument("--host", default="127.0.0.1", help="that the engine listens on")
    deploy.add_argument("--port", type=int, default=8000)
    deploy.add_argument("--replicas", type=int, default=2, help="of ray-serve (2)")
    deploy.add_argument("--license", default="", help="of the weights, for the card")
    deploy.add_argument("--no-start", action="store_true", help="do not start it to compare")
    deploy.set_defaults(work=_deploy)


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


def _deploy(options: argparse.Namespace) -> int:
    """Write, start, compare; print what was proved."""
    import torch  # noqa: PLC0415

    from modelwright import api  # noqa: PLC0415
    from modelwright.exporting.subject import Options  # noqa: PLC0415
    from modelwright.pipeline.deploy import LAUNCH, deploy  # noqa: PLC0415

    proved = deploy(
        api.existing(options.run),
        options.out,
        api.say,
        to=options.to,
        stage=options.stage,
        options=Options(
            dtype=getattr(torch, options.dtype) if options.dtype else None,
            quantization=options.quantize,
        ),
        host=options.host,
        port=options.port,
        replicas=options.replicas,
        license=options.license,
        weights=options.weights,
        start=not options.no_start,
    )
    for line in proved:
        print(line)
    print(f"start it: sh {options.out / LAUNCH}")
    return EXIT_OK


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
    from modelwright.api import say  # noqa: PLC0415
    from modelwright.pipeline.served import ServedRuns, Settings  # noqa: PLC0415
    from modelwright.serving.hosting import Tls  # noqa: PLC0415
    from modelwright.serving.kept import Keeper  # noqa: PLC0415
    from modelwright.serving.limits import limits_of  # noqa: PLC0415
    from modelwright.serving.server import Access, serve  # noqa: PLC0415

    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ModelwrightError("--tls-certificate, --tls-key: give both or neither")
    if options.weights and options.adapter:
        raise ModelwrightError(
            "--weights, --adapter: a base in few bits takes no adapters; leave one of them out"
        )
    tls = Tls(options.tls_certificate, options.tls_key) if options.tls_key else None
    if options.access_log:
        _show_access()
    run = options.run.resolve()
    access = Access(
        options.api_key or os.environ.get(KEY_VARIABLE) or None,
        options.keys,
        options.admin_key or os.environ.get(ADMIN_VARIABLE) or None,
        hosts=options.allow_host,
        origins=options.allow_origin,
    )
    rates = ("requests_a_minute", "tokens_a_minute")  # have options of their own
    given = [f"{rate}={n}" for rate in rates if (n := getattr(options, rate)) is not None]
    limits = limits_of(options.limits, [*options.limit, *given])
    settings = Settings(
        run=str(options.run),  # as it was typed: messages name it so
        stage=options.stage,
        weights=options.weights,
        max_batch=options.max_batch,
        max_waiting=options.max_waiting,
        drafts=options.drafts,
        cache_tokens=options.cache_tokens,
        reproducible=options.reproducible,
    )
    runs = ServedRuns(
        options.runs or run.parent, settings, say, limits, separate=not options.one_process
    )
    kept: Path | None = options.keep_requests
    keeper = None if kept is None else Keeper(kept, options.keep_share)
    engine = runs.first()
    serve(
        engine,
        options.name or run.name,
        options.host,
        options.port,
        access=access,
        limits=limits,
        runs=runs,
        adapters=options.adapter,
        keeper=keeper,
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
