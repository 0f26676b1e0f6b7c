"""Addresses: fetched once, gone on with where it broke, checked, and refused in one line."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from modelwright.data.fetching import download, local
from modelwright.errors import CorruptError, MachineError, ModelwrightError

CONTENT = bytes(range(256)) * 4000
SHA = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``files``; the first answers break off after ``breaks`` bytes each."""

    protocol_version = "HTTP/1.1"

    def __init__(self, files, breaks, asked, *rest):
        self.files, self.breaks, self.asked = files, breaks, asked
        super().__init__(*rest)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, self.headers.get("Range")))
        content, headers = self.files.get(path, (None, {}))
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end, wanted = 0, len(content), self.headers.get("Range")
        if wanted and "no-ranges" not in headers:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, end) if last else end
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if wanted and "no-ranges" not in headers else 200)
        self.send_header("Content-Length", str(end - start))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = content[start:end]
        if self.command == "HEAD":
            return
        if self.breaks:
            body = body[: self.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def served(files, breaks=()):
    asked: list = []
    made = functools.partial(Handler, files, list(breaks), asked)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_is_fetched_once(tmp_path):
    with served({"/d/a%20b.bin": (CONTENT, {})}) as (address, asked):
        said: list[str] = []
        found = local(f"{address}/d/a%20b.bin", SHA, tmp_path, said.append)
        assert found.read_bytes() == CONTENT and found.name == "a b.bin"
        assert local(f"{address}/d/a%20b.bin", SHA, tmp_path) == found
    assert len(asked) == 1 and said == [f"fetching {address}/d/a%20b.bin"]
    assert [p.name for p in found.parent.iterdir()] == ["a b.bin"]


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path):
    with served({"/a": (CONTENT, {})}, breaks=[100_000, 200_000]) as (address, asked):
        assert local(f"{address}/a", SHA, tmp_path).read_bytes() == CONTENT
    assert [r for _, _, r in asked] == [None, "bytes=100000-", "bytes=300000-"]


def test_a_server_without_ranges_begins_again(tmp_path):
    with served({"/a": (CONTENT, {"no-ranges": "1"})}, breaks=[100_000]) as (address, _):
        assert local(f"{address}/a", SHA, tmp_path).read_bytes() == CONTENT


def test_what_broke_off_for_good_is_kept_and_gone_on_with(tmp_path):
    with served({"/a": (CONTENT, {})}, breaks=[50_000] * 4) as (address, asked):
        with pytest.raises(MachineError, match="start the same command again"):
            local(f"{address}/a", SHA, tmp_path)
        (part,) = tmp_path.rglob("*.part")
        assert part.read_bytes() == CONTENT[:200_000]
        assert local(f"{address}/a", SHA, tmp_path).read_bytes() == CONTENT
    assert asked[-1][2] == "bytes=200000-"


def test_changed_content_is_refused_and_not_kept(tmp_path):
    changed = {"/a": (CONTENT[:-1] + b"!", {})}
    match = f"{SHA} is meant"
    with served(changed) as (address, _), pytest.raises(CorruptError, match=match) as error:
        local(f"{address}/a", SHA, tmp_path)
    assert "\n" not in str(error.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_part_longer_than_the_file_is_dropped(tmp_path):
    target = tmp_path / "a"
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    with served({"/a": (CONTENT, {})}) as (address, _):
        assert download(f"{address}/a", target, SHA).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "sha256", "why"),
    [
        ("https://a.org/x", None, "not pinned: give the sha256"),
        ("https://a.org/x", "abc", "not 64 hexadecimal digits"),
        ("ftp://a.org/x", SHA, "no address of a known kind.*https://"),
        ("file:///etc/passwd", SHA, "no address of a known kind"),
        ("hf://datasets/imdb/plain.parquet", None, "not pinned: write the commit"),
        ("hf://datasets/a/b@main/x.parquet", None, "not pinned.*a/b@COMMIT"),
        ("hf://models/x@" + COMMIT, None, "hf://datasets/NAME@COMMIT/FILE is meant"),
    ],
)
def test_what_is_not_pinned_is_refused_in_one_line(tmp_path, source, sha256, why):
    with pytest.raises(ModelwrightError, match=why) as error:
        local(source, sha256, tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_missing_file_and_a_silent_server(tmp_path):
    with served({}) as (address, _), pytest.raises(MachineError, match="says 404"):
        local(f"{address}/a", SHA, tmp_path)
    with pytest.raises(MachineError, match="cannot be fetched"):
        local(f"{address}/a", SHA, tmp_path)


def test_the_hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    base = f"/datasets/me/set/resolve/{COMMIT}/"
    headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{SHA}"', "Accept-Ranges": "bytes"}
    listing = {"id": "me/set", "sha": COMMIT, "siblings": [{"rfilename": "d/a.bin"}]}
    about = (json.dumps(listing).encode(), {"Content-Type": "application/json"})
    files = {base + "d/a.bin": (CONTENT, headers)}
    files |= {f"/api/datasets/me/set/revision/{COMMIT}": about}
    tree = json.dumps([{"type": "file", "path": "d/a.bin", "size": len(CONTENT), "oid": "0" * 40}])
    files |= {f"/api/datasets/me/set/tree/{COMMIT}": (tree.encode(), about[1])}
    with served(files) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        # Tests beside this one keep transformers from the network, for the whole process.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        found = local(f"hf://datasets/me/set@{COMMIT}/d/a.bin", SHA, tmp_path)
        assert found.read_bytes() == CONTENT and not found.is_symlink()
        with pytest.raises(MachineError, match="the hub does not give it") as error:
            local(f"hf://datasets/me/set@{COMMIT}/d/b.bin", None, tmp_path)
        assert "\n" not in str(error.value)
        folder = local(f"hf://datasets/me/set@{COMMIT}/d/*", None, tmp_path)
        assert (folder / "d" / "a.bin").read_bytes() == CONTENT


def test_a_store(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    headers = {"ETag": '"abc"', "Last-Modified": formatdate(0, usegmt=True)}
    with served({"/bucket/d/a.bin": (CONTENT, headers)}) as (address, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        found = local("s3://bucket/d/a.bin", SHA, tmp_path)
        assert found.read_bytes() == CONTENT
        fetched = sum(command == "GET" for command, _, _ in asked)
        assert local("s3://bucket/d/a.bin", None, tmp_path) == found
        assert sum(command == "GET" for command, _, _ in asked) == fetched
        with pytest.raises(MachineError, match="the store does not give it"):
            local("s3://bucket/none", None, tmp_path)
