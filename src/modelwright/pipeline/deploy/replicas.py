"""Replicas of one run behind Ray Serve's proxy: each has the whole server, and so its API.

``app`` is what a configuration of Ray Serve imports; ``python -m`` of this file starts the same on
a local cluster. A replica is a process of Ray's, which starts another one where it is lost or its
engine makes no steps; a request that was in it fails, and may be sent again.

Whoever reaches a cluster's own ports runs code on it: keep them in a private network, and use Ray's
token authentication (RAY_AUTH_MODE=token). Clients need the key of MODELWRIGHT_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from modelwright.errors import EXIT_USAGE, MachineError
from modelwright.pipeline.deploy import KEY
from modelwright.pipeline.served import Settings, engine_of
from modelwright.serving.origins import is_loopback
from modelwright.serving.server import Access, build_app
from modelwright.serving.service import Answering

ONGOING, QUEUED = 64, 256  # requests of a replica, and of the proxy before it is 503
HEALTH_SECONDS = 5.0
DRAIN_SECONDS = 30.0

_running: list[Answering] = []  # the engine of this replica


def library() -> Any:
    """``ray.serve``.

    Raises:
        MachineError: it is not installed.
    """
    try:
        from ray import serve  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"ray-serve: {error.name} is not installed; pip install 'ray[serve]'"
        ) from error
    return serve


def app(given: dict[str, Any]) -> Any:
    """The application of a configuration: ``run``, ``name``, ``replicas`` and settings.

    Args:
        given: ``args`` of the configuration; see ``Settings``.
    """
    serve = library()
    replicas, name = int(given.get("replicas", 2)), str(given["name"])
    settings = {k: v for k, v in given.items() if k not in ("replicas", "name")}

    def built() -> Any:
        return replica(settings, name)

    class Replica:
        def check_health(self) -> None:
            from modelwright.pipeline.deploy.replicas import well  # noqa: PLC0415 - pickled

            if not well():
                raise RuntimeError("the engine makes no steps")

    deployed: Any = serve.deployment(
        serve.ingress(built)(Replica),
        name="replica",
        num_replicas=replicas,
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=4 * HEALTH_SECONDS,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
    )
    return deployed.bind()


def replica(settings: dict[str, Any], name: str) -> Any:
    """The server of one replica."""
    engine, _ = engine_of(Settings(**settings), lambda line: print(line, file=sys.stderr))
    _running[:] = [engine]
    access = Access(api_key=os.environ.get(KEY) or None)
    return build_app(engine, model_name=name, access=access)


def well() -> bool:
    """Whether this replica's engine makes steps, once it has begun."""
    return all(engine.alive or not getattr(engine, "died", False) for engine in _running)


def main(arguments: Sequence[str]) -> int:
    """Start a configuration on a cluster: RAY_ADDRESS, or one of this machine."""
    parser = argparse.ArgumentParser(prog="replicas")
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, default=0, help="in place of the configuration's")
    options = parser.parse_args(arguments)
    serve = library()
    import ray  # noqa: PLC0415

    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    http, (wanted,) = config["http_options"], config["applications"]
    if not is_loopback(http["host"]) and not os.environ.get(KEY):
        print(f"{options.config}: others can reach {http['host']}; set {KEY}", file=sys.stderr)
        return EXIT_USAGE
    address = os.environ.get("RAY_ADDRESS")
    local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address, log_to_driver=False, **({} if address else local))
    serve.start(http_options={"host": http["host"], "port": options.port or http["port"]})
    serve.run(app(wanted["args"]), name=wanted["name"], route_prefix=wanted["route_prefix"])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which has handlers of its own
        signal.signal(number, lambda *_: stop.set())
    print(f"serving {wanted['name']}", flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
