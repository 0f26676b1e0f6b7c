"""Ray Serve: replicas on one machine or several, one proxy before them."""

from __future__ import annotations

import sys

import yaml

from modelwright.errors import MachineError, ModelwrightError
from modelwright.files import write_file
from modelwright.pipeline.deploy import RUN, Order, copy_run, write_launch
from modelwright.pipeline.deploy.replicas import library

CONFIG = "serve.yaml"
MODULE = "modelwright.pipeline.deploy.replicas"


def write(order: Order) -> None:
    """Write the run, the configuration, and how it is started on this machine.

    On a cluster ``serve deploy serve.yaml`` takes the same file; the run must lie at the same place
    on all machines.
    """
    if order.replicas < 1:
        raise ModelwrightError(f"--replicas: {order.replicas} is less than 1")
    copy_run(order)
    arguments = {
        "run": str(order.place / RUN),
        "name": order.name,
        "replicas": order.replicas,
        "stage": order.stage,
    }
    config = {
        "http_options": {"host": order.host, "port": order.port},
        "applications": [
            {
                "name": order.name,
                "route_prefix": "/",
                "import_path": f"{MODULE}:app",
                "args": arguments,
            }
        ],
    }
    write_file(order.folder / CONFIG, [yaml.safe_dump(config, sort_keys=False).encode()])
    write_launch(
        order,
        [sys.executable, "-m", MODULE, f"./{CONFIG}", "--port", "$PORT"],
        ["RAY_USAGE_STATS_ENABLED=0"],
    )


def absent() -> str:
    """Whether Ray Serve is there."""
    try:
        library()
    except MachineError as error:
        return str(error)
    return ""


def check(order: Order) -> str:
    """How many replicas there are to be."""
    return f"{CONFIG}: {order.replicas} replicas behind {order.host}:{order.port}"
