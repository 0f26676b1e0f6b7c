"""A container with this package's own server: not as root, and nothing in it can be written."""

from __future__ import annotations

import re
import shlex
import sys

from modelwright.errors import ModelwrightError
from modelwright.files import write_file
from modelwright.pipeline.deploy import RUN, Order, copy_run, write_launch
from modelwright.version import __version__

BASE = "python:3.11-slim-bookworm"
USER = "10001:10001"
_FILE = """\
# Build and start: sh build.sh && MODELWRIGHT_API_KEY=... sh run.sh
FROM {base}
ARG MODELWRIGHT="modelwright[text,serve]=={version}"
RUN pip install --no-cache-dir --no-compile "$MODELWRIGHT" \\
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin modelwright
COPY --chown=0:0 --chmod=a+rX {run} /srv/{name}
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
USER {user}
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-c", \
"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["modelwright", "serve", "/srv/{name}", "--host", "0.0.0.0", "--port", "8000"]
"""
_BUILD = """\
#!/bin/sh
set -eu
cd "$(dirname "$0")"
exec docker build --tag {name} .
"""
# No capability, no new privilege, no file to write but in memory; a key is asked for.
_RUN = """\
#!/bin/sh
set -eu
: "${{MODELWRIGHT_API_KEY:?a server that others reach needs a key}}"
exec docker run --rm --init --read-only --tmpfs /tmp:rw,nosuid,nodev,size=256m \\
    --cap-drop ALL --security-opt no-new-privileges --pids-limit 512 --stop-timeout 45 \\
    --user {user} --publish {host}:"${{PORT:-{port}}}":8000 --env MODELWRIGHT_API_KEY {name} "$@"
"""


def write(order: Order) -> None:
    """Write the run, the container file, how it is built and started, and the same without one."""
    copy_run(order)
    values = {
        "base": BASE, "version": __version__, "run": RUN, "name": _plain(order.name),
        "user": USER, "host": order.host, "port": order.port,
    }  # fmt: skip
    files = {
        "Dockerfile": _FILE.format(**values),
        "build.sh": _BUILD.format(**values),
        "run.sh": _RUN.format(**values),
        ".dockerignore": f"*\n!{RUN}\n",
    }
    for name, text in files.items():
        write_file(order.folder / name, [text.encode()])
    own_server(order)


def own_server(order: Order) -> None:
    """Write ``launch.sh`` for the package's own server over the copied run."""
    command = [sys.executable, "-m", "modelwright", "serve", f"./{RUN}", "--name", order.name]
    stage = ["--stage", order.stage] if order.stage else []
    write_launch(order, [*command, *stage, "--host", order.host, "--port", "$PORT"])


def absent() -> str:
    """The server in it is here; the container is not built."""
    return ""


def check(order: Order) -> str:
    """Hold the container file against the rules.

    Raises:
        ModelwrightError: it breaks one.
    """
    problems = lint((order.folder / "Dockerfile").read_text(encoding="utf-8"))
    if problems:
        raise ModelwrightError(f"deploy: Dockerfile: {problems[0]}")
    return "Dockerfile: not root, read-only, no capability; not built here, its server is started"


def lint(text: str) -> list[str]:
    """What is wrong with a container file, a line each."""
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    steps = [line.split(None, 1) for line in lines if not line.startswith("#")]
    found = [f"{word} is unknown or unsafe" for word, _ in steps if word not in _STEPS]
    named = {step[0]: step[1] for step in steps}
    if not re.fullmatch(r"[\w./-]+:[\w.-]+(@sha256:[0-9a-f]{64})?", named.get("FROM", "")):
        found.append("FROM names no version")
    if ":latest" in named.get("FROM", ""):
        found.append("FROM names the latest, which is another tomorrow")
    if named.get("USER", "0").split(":")[0] in ("0", "root"):
        found.append("USER is root")
    order = [word for word, _ in steps]
    if "USER" in order and "RUN" in order[order.index("USER") :]:
        found.append("RUN after USER: what is installed must not belong to who serves")
    if not named.get("ENTRYPOINT", "").startswith("["):
        found.append("ENTRYPOINT goes through a shell, which keeps SIGTERM to itself")
    if "HEALTHCHECK" not in named:
        found.append("HEALTHCHECK is missing")
    return found


_STEPS = (
    "FROM", "ARG", "RUN", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD", "LABEL", "WORKDIR",
)  # fmt: skip


def _plain(name: str) -> str:
    """A run's name as images and paths may be called."""
    plain = re.sub(r"[^a-z0-9._-]", "-", name.lower()).strip("-._") or "model"
    return shlex.quote(plain)
