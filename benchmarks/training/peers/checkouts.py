"""nanoGPT and nanochat at the commits that are compared, since neither is a package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from modelwright.errors import MachineError

COMMITS = {
    "nanoGPT": "3adf61e154c3fe3fca428ad6bc3818b27a3b8291",
    "nanochat": "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd",
}
GIVEN = "MODELWRIGHT_PEERS"
FOLDER = Path(__file__).resolve().parents[2] / ".peers"


def checkout(name: str) -> Path:
    """The folder of a peer at its commit, cloned from GitHub on the first call.

    Without a network, put the checkouts into a folder and name it in MODELWRIGHT_PEERS.

    Raises:
        MachineError: it cannot be cloned, or stands at another commit.
    """
    given = os.environ.get(GIVEN)
    path = Path(given or FOLDER).resolve() / name
    if not path.is_dir():
        if given:
            raise MachineError(f"{GIVEN}={given}: no folder {name}; clone it there, or unset it")
        path.parent.mkdir(exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n", encoding="ascii")
        _git("clone", "--quiet", f"https://github.com/karpathy/{name}", str(path))
        _git("-C", str(path), "checkout", "--quiet", COMMITS[name])
    found = _git("-C", str(path), "rev-parse", "HEAD").strip()
    if found != COMMITS[name]:
        raise MachineError(
            f"{path}: is at commit {found[:7]}, the comparison is with {COMMITS[name][:7]}; "
            f"run `git checkout {COMMITS[name]}` there"
        )
    return path


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"git {arguments[0]}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MachineError(
            f"git {' '.join(arguments)}: {last}; without a network name a folder of checkouts "
            f"in {GIVEN}"
        )
    return done.stdout
