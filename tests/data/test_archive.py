"""Packed files are read by their regular members only, within limits."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from modelwright.data.archive import gunzip, tar_members
from modelwright.errors import CorruptError, ModelwrightError


def pack(path, members: dict[str, bytes], mode: str = "w:xz") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind in (("link", tarfile.SYMTYPE), ("dev", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name + ".wav")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)


def test_only_regular_members_are_given(tmp_path):
    members = {"a.wav": b"one", "../../b.wav": b"two", "c.txt": b"no"}
    pack(tmp_path / "a.tar.xz", members)
    found = dict(tar_members(tmp_path / "a.tar.xz", suffix=".wav"))
    assert found == {"a.wav": b"one", "../../b.wav": b"two"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.xz"]


@pytest.mark.parametrize(
    "limit", [{"max_members": 2}, {"max_member_bytes": 99}, {"max_total_bytes": 150}]
)
def test_limits(tmp_path, limit):
    pack(tmp_path / "a.tar", {"a": bytes(100), "b": bytes(100)}, "w")
    with pytest.raises(ModelwrightError, match=r"a\.tar: .*not unpacked"):
        list(tar_members(tmp_path / "a.tar", **limit))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_cut_archive_is_found(tmp_path, mode):
    path = tmp_path / "a.tar"
    pack(path, {f"{i}.wav": bytes(range(256)) * 40 for i in range(20)}, mode)
    assert len(list(tar_members(path, suffix="wav"))) == 20
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CorruptError, match=r"a\.tar: damaged archive"):
        list(tar_members(path))


def test_gunzip_limits(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    assert len(gunzip(path)) == 100_000
    with pytest.raises(ModelwrightError, match="more than 50000 bytes"):
        gunzip(path, max_bytes=50_000)
