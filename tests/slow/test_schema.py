"""Requests made of the API's own document: by hand, `pytest tests/slow/test_schema.py -s`.

Needs `pip install schemathesis`. MODELWRIGHT_EXAMPLES (100) are made of every operation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Rules between two fields are not in the document, so a request that follows it may be refused.
LEFT_OUT = "positive_data_acceptance"


def test_no_request_of_the_document_breaks_the_server():
    """S1, S5: no 5xx, no answer of another shape, nothing accepted that the document excludes."""
    pytest.importorskip("schemathesis")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "slow" / "tiny_server.py")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        url = server.stdout.readline().split(" at ")[1].split()[0]
        run = "from schemathesis.cli import schemathesis; schemathesis()"
        options = ["--checks", "all", "--exclude-checks", LEFT_OUT, "--seed", "1"]
        options += ["--max-examples", os.environ.get("MODELWRIGHT_EXAMPLES", "100")]
        done = subprocess.run(
            [sys.executable, "-c", run, "run", f"{url}/openapi.json", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout[-3000:])
        assert done.returncode == 0
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0
        server.stdout.close()
