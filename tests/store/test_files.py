"""Trees of files behave alike in a folder and in memory, and nothing leaves them."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from mbpo_core.errors import StoreError, StoreFull
from mbpo_core.store import Store
from mbpo_core.store.files import Files
from mbpo_core.store.local_files import LocalFiles
from mbpo_core.store.roots import open_files


def test_write_read_list_remove(files: Files) -> None:
    assert files.names("a") == []
    assert files.size("a/b.bin") is None
    with pytest.raises(FileNotFoundError):
        files.read("a/b.bin")
    files.write("a/b.bin", b"one")
    files.write("a/b.bin", b"longer")
    files.write("a/deep/c.bin", b"")
    assert (files.read("a/b.bin"), files.size("a/b.bin")) == (b"longer", 6)
    assert files.names("a") == ["b.bin", "deep"]
    assert files.walk("a") == {"a/b.bin": 6, "a/deep/c.bin": 0}
    assert files.walk("a/b.bin") == {"a/b.bin": 6}
    assert files.sha256("a/b.bin") == hashlib.sha256(b"longer").hexdigest()
    files.remove("a/b.bin")
    files.remove("a/b.bin")
    assert files.names("a") == ["deep"]
    files.remove("a")
    assert files.walk("a") == {}


def test_create_never_replaces(files: Files) -> None:
    assert files.create("lease.json", b"first")
    assert not files.create("lease.json", b"second")
    assert files.read("lease.json") == b"first"


def test_upload_and_link(files: Files, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    size, sha256 = files.upload(tmp_path / "source", "a/weights.bin")
    assert (size, sha256) == (3_000_000, hashlib.sha256(b"x" * 3_000_000).hexdigest())
    files.link("a/weights.bin", "b/weights.bin")
    files.remove("a")
    assert files.size("b/weights.bin") == 3_000_000
    with files.open("b/weights.bin") as file:
        file.seek(2_999_999)
        assert file.read() == b"x"


def test_download_comes_whole_or_not_at_all(files: Files, tmp_path: Path) -> None:
    files.write("a/b", b"whole")
    target = tmp_path / "copies" / "b"
    files.download("a/b", target)
    assert target.read_bytes() == b"whole"
    with pytest.raises(FileNotFoundError):
        files.download("a/none", target)
    assert [path.name for path in target.parent.iterdir()] == ["b"]
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize(
    "path", ["../out", "a/../../out", "/etc/passwd", "a//b", "", ".hidden", "a/.lock", "a\x00b", "~", "a\n"]
)
def test_paths_cannot_leave_the_tree(files: Files, path: str) -> None:
    for call in (files.read, files.size, files.names, files.remove, files.scratch):
        with pytest.raises(StoreError, match="cannot be a path inside the store"):
            call(path)
    with pytest.raises(StoreError):
        files.write(path, b"")


def test_links_cannot_leave_the_tree(tmp_path: Path) -> None:
    files = open_files(tmp_path / "tree")
    files.write("a/b", b"")
    (tmp_path / "tree" / "out").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="leads out of the store"):
        files.write("out/x", b"")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("root", ["ftp://host/x", "gs://bucket/x", "http://host/x", "zip://x"])
def test_other_protocols_are_refused(root: str) -> None:
    with pytest.raises(StoreError, match=r"a store cannot live on \w+://.*expected a local path, file://, memory://"):
        Store(root)


@pytest.mark.parametrize("rest", ["KEYID:VERYSECRET@bucket/runs", "bucket/runs?key=VERYSECRET"])
def test_credentials_in_a_root_are_refused_and_not_repeated(rest: str) -> None:
    with pytest.raises(StoreError, match="holds no credentials") as refused:
        Store(f"s3://{rest}")
    assert "VERYSECRET" not in str(refused.value)


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("here").root == str(tmp_path / "here")
    assert Store(f"file://{tmp_path}/there").root == str(tmp_path / "there")
    with pytest.raises(StoreError, match="root has no name"):
        Store("memory://")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    files = open_files(tmp_path / "tree")
    files.write("a/kept", b"old")
    (tmp_path / "source").write_bytes(b"x")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: files.write("a/kept", b"new"),
        lambda: files.create("a/new", b"new"),
        lambda: files.upload(tmp_path / "source", "a/copy"),
    ):
        with pytest.raises(StoreFull, match="no space left"):
            write()
    assert os.listdir(tmp_path / "tree" / "a") == ["kept"]
    assert files.read("a/kept") == b"old"


def test_a_place_without_rights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = open_files(tmp_path)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=r"cannot write: Permission denied.*Give this user the right"):
        files.write("a", b"")


def test_prune_keeps_what_is_in_use(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "tree")
    files.write("a/b/c/file", b"")
    files.write("a/other", b"")
    files.prune("a/b/c")
    assert files.size("a/b/c/file") == 0
    files.remove("a/b/c/file")
    (tmp_path / "tree/a/b/c/.file.aside").touch()
    files.prune("a/b/c")
    assert files.names("a") == ["other"]
