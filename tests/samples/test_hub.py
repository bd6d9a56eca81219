"""Datasets of the hub: refused unless allowed, fetched from a server that speaks its protocol, read from the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.hub import HubName, hub_repository, parse_hub_name
from mbpo_core.samples.paths import input_path, resolve_image
from mbpo_core.samples.problems import Unusable
from tests.samples.helpers import encoded, picture

REPO, COMMIT = "someone/shapes", "c0ffee" * 6 + "c0ff"
IMPORT = """
import json, sys
from pathlib import Path
from mbpo_core.errors import MbpoError
from tests.samples.helpers import import_samples
for settings in json.loads(sys.argv[2]):
    try:
        reader = import_samples(Path(sys.argv[1]), **settings)
        external = reader.manifest.identity["external"]
        told = {"rows": [row["question"] for row in reader.rows()], "dropped": reader.manifest.dropped}
        print(json.dumps(told | {"files": external["path"]["files"], "digest": reader.ref.digest}))
    except MbpoError as error:
        print(json.dumps({"error": str(error)}))
"""


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


ROW = {"image": {"bytes": encoded(picture()), "path": None}, "question": "Is it red?", "answer": "yes"}
FILES = {
    "README.md": b"# Shapes\n",
    "data/train-00000-of-00001-0123456789abcdef.parquet": parquet_bytes([ROW]),
    "more/rows.json": json.dumps([{"image": "pictures/a.png", "question": "Is it round?", "answer": "no"}]).encode(),
    "more/pictures/a.png": encoded(picture()),
}


class Hub(BaseHTTPRequestHandler):
    """The calls that a snapshot needs: the commit, its files, and a file."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if self.path.startswith(f"/api/datasets/{REPO}/tree/"):
            files = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in FILES.items()
            ]
            self.answer(json.dumps(files).encode(), "application/json")
            return
        if self.path.startswith(f"/api/datasets/{REPO}"):
            told = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self.answer(json.dumps(told).encode(), "application/json")
            return
        name = self.path.removeprefix(f"/datasets/{REPO}/resolve/{COMMIT}/")
        if name in FILES:
            self.answer(FILES[name], "application/octet-stream")
        else:
            self.send_error(404)

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for header, value in (headers | {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    handler = type("OneHub", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def imported(tmp_path: Path, endpoint: str, *settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Import in a process of its own: the client reads its environment once."""
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "store"), json.dumps(settings)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dataset_is_fetched_only_if_allowed_and_then_read_offline(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    endpoint, asked = hub
    part = {"source": "dataset", "path": f"{REPO}:data"}
    whole = {"source": "dataset", "path": REPO, "allow_download": True}
    first, fetched = imported(tmp_path, endpoint, part | {"allow_download": True}, whole)
    assert (first["rows"], first["files"]) == (["Is it red?"], 1), "only the part that was named"
    resolved = [line for line in asked if line.startswith("GET") and "resolve" in line]
    assert "data/train" in resolved[0], "the part came before the rest"
    assert (fetched["rows"], fetched["files"]) == (["Is it red?"], len(FILES))
    asked.clear()
    lines = {"source": "jsonl", "path": f"{REPO}:more/rows.json"}
    others = [part | {"path": f"{REPO}:nothing"}, part | {"path": "someone/else"}]
    offline, array, missing, refused = imported(tmp_path, endpoint, part, lines, *others)
    assert "'someone/else' is neither a file or folder nor in the local hub cache" in refused["error"]
    assert "set samples.allow_download: true" in refused["error"]
    assert (offline, asked) == (first, []), "the same artifact, from the cache; nothing is asked without leave"
    assert (array["rows"], array["dropped"]) == (["Is it round?"], {}), "a picture that lies behind the cache's links"
    assert "has no 'nothing'" in missing["error"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("openbmb/RLAIF-V-Dataset", HubName("openbmb/RLAIF-V-Dataset")),
        ("a/b@v1.0", HubName("a/b", "v1.0")),
        ("a/b@refs/pr/3:data/train", HubName("a/b", "refs/pr/3", "data/train")),
        ("a/b:rows.json", HubName("a/b", None, "rows.json")),
        ("rows.jsonl", None),
        ("data/rows.parquet", None),
        ("a/b/c", None),
        ("./a/b", None),
        ("/a/b", None),
        ("~/a", None),
    ],
)
def test_names_of_the_hub(path: str, name: HubName | None) -> None:
    assert parse_hub_name(SamplesConfig(source="dataset", path=path)) == name
    lines = parse_hub_name(SamplesConfig(source="jsonl", path=path))
    assert lines == (name if name and name.inside else None), "lines are a file, never a whole dataset"


def test_a_folder_that_is_there_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "someone" / "shapes").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert input_path(SamplesConfig(source="dataset", path=REPO)) == Path(REPO)
    with pytest.raises(DataError, match="in the local hub cache"):
        input_path(SamplesConfig(source="dataset", path="someone/else"))


def test_names_of_a_snapshot_may_not_leave_it(tmp_path: Path) -> None:
    """The cache's own links lead to blobs beside the snapshot; names that climb there are refused all the same."""
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "1"
    (snapshot / "inner").mkdir(parents=True)
    (blobs := tmp_path / "datasets--a--b" / "blobs").mkdir()
    (blobs / "x").write_bytes(b"x")
    (snapshot / "inner" / "a.png").symlink_to(blobs / "x")
    (snapshot / "out.png").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"s")
    assert hub_repository(snapshot / "inner") == tmp_path / "datasets--a--b"
    assert hub_repository(tmp_path) is None
    assert resolve_image(snapshot, "inner/../inner/a.png") == snapshot / "inner" / "a.png"
    for name in ("../../blobs/x", "inner/../../../blobs/x", str(blobs / "x"), "out.png", "/etc/passwd"):
        with pytest.raises(Unusable, match="image_outside_root"):
            resolve_image(snapshot, name)
