"""Pictures by URL, from a real server on this machine: what is fetched, what is refused, and that identity holds."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples import urls
from mbpo_core.samples.urls import Limits, NotFetched, UrlFolder, fetch
from tests.samples.helpers import encoded, import_samples, opened, picture, write_lines

PICTURE = encoded(picture())
LIMITS = Limits(frozenset({"127.0.0.1"}), 10_000, 5.0)


class Pictures(BaseHTTPRequestHandler):
    """Answers by what the path asks for; notes every request."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]
    down: set[str]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        what = self.path.strip("/").partition("?")[0]
        if what in self.down:
            self.send_error(503)
        elif what.startswith("to/"):
            self.told(302, b"", Location=what.removeprefix("to/").replace("|", "/"))
        elif what == "loop":
            self.told(302, b"", Location="/loop")
        elif what == "huge":
            self.told(200, b"", length=10**9)
        elif what == "endless":
            self.told(200, b"x" * 20_000, chunked=True)
        elif what == "slow":
            self.told(200, b"")
        elif what == "packed":
            self.told(200, PICTURE, **{"Content-Encoding": "gzip"})
        else:
            self.told(200, b"no picture" if what == "page.html" else PICTURE)

    def told(self, code: int, body: bytes, length: int | None = None, chunked: bool = False, **headers: str) -> None:
        self.send_response(code)
        size = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length or len(body) or 0)}
        if self.path == "/slow":
            size = {"Content-Length": "100"}
        for name, value in (size | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(30):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif chunked:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def serve(handler: type[Pictures], context: ssl.SSLContext | None = None) -> Iterator[tuple[str, type[Pictures]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pictures() -> Iterator[tuple[str, type[Pictures]]]:
    yield from serve(type("Some", (Pictures,), {"seen": [], "down": set()}))


def refused(url: str, limits: Limits = LIMITS) -> str:
    with pytest.raises(NotFetched) as problem:
        fetch(url, limits)
    return str(problem.value)


def test_what_a_declared_host_gives(pictures: tuple[str, type[Pictures]]) -> None:
    place, server = pictures
    assert fetch(f"{place}/a.png?size=1", LIMITS) == PICTURE
    assert fetch(f"{place}/to/|b.png", LIMITS) == PICTURE, "a redirect to the same host"
    host = place.removeprefix("http://")
    assert server.seen == [("/a.png?size=1", host), ("/to/|b.png", host), ("/b.png", host)]


def test_a_private_address_is_refused_before_it_is_called(pictures: tuple[str, type[Pictures]]) -> None:
    place, server = pictures
    nobody = replace(LIMITS, hosts=frozenset())
    port = place.rpartition(":")[2]
    for url in (
        f"https://127.0.0.1:{port}/a.png", f"https://localhost:{port}/a.png", f"https://[::1]:{port}/a.png",
        f"https://[::ffff:127.0.0.1]:{port}/a.png", f"https://2130706433:{port}/a.png", "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data", "https://192.168.1.1/", "https://0.0.0.0/", "https://[fe80::1]/",
        "https://224.0.0.1/",
    ):  # fmt: skip
        assert "private address" in refused(url, nobody), url
    for url in (f"{place}/a.png", "ftp://example.org/a.png", "file:///etc/passwd", "/a.png", "a.png"):
        assert "only https is spoken" in refused(url, nobody), url
    assert "credentials" in refused(f"{place.replace('//', '//user:secret@')}/a.png")
    assert "secret" not in refused(f"{place.replace('//', '//user:secret@')}/a.png")
    assert server.seen == []


def test_redirects_are_looked_at_like_the_first_url(pictures: tuple[str, type[Pictures]]) -> None:
    place, server = pictures
    port = place.rpartition(":")[2]
    assert "localhost is at a private address" in refused(f"{place}/to/https:||localhost:{port}|a.png")
    assert "only https is spoken" in refused(f"{place}/to/http:||localhost:{port}|a.png")
    assert "only https is spoken" in refused(f"{place}/to/file:|||etc|passwd")
    assert [path for path, _ in server.seen if "to" not in path] == []
    assert refused(f"{place}/loop") == "more than 3 redirects"


def test_limits_of_size_time_and_form(pictures: tuple[str, type[Pictures]]) -> None:
    place, _ = pictures
    assert "more than 10000 bytes" in refused(f"{place}/huge")
    assert "more than 10000 bytes" in refused(f"{place}/endless")
    begun = time.monotonic()
    assert "took longer than 0.2 s" in refused(f"{place}/slow", replace(LIMITS, timeout_s=0.2))
    assert time.monotonic() - begun < 1.2
    assert "compressed" in refused(f"{place}/packed")
    pictures[1].down.add("a.png")
    assert refused(f"{place}/a.png") == "the server answered 503"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "ConnectError" in refused(f"http://127.0.0.1:{unused.getsockname()[1]}/a.png")


def certificate(folder: Path) -> Path:
    """A certificate for the name `pictures.test`, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    (folder / "public.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder


def test_tls_is_checked_against_the_name_though_the_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up is made once; a second one, which could lead elsewhere, would fail here."""
    folder = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    trust = ssl.create_default_context(cafile=str(folder / "public.pem"))
    looked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        looked.append(name)
        if name in ("pictures.test", "other.test"):
            assert looked.count(name) == 1
            return real("127.0.0.1", *arguments, **options)
        assert ipaddress.ip_address(name)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    limits = replace(LIMITS, hosts=frozenset({"pictures.test", "other.test"}))
    running = serve(type("Safe", (Pictures,), {"seen": [], "down": set()}), context)
    place, server = next(running)
    port = place.rpartition(":")[2]
    assert fetch(f"https://pictures.test:{port}/a.png", limits, trust=trust) == PICTURE
    assert server.seen == [("/a.png", f"pictures.test:{port}")]
    with pytest.raises(NotFetched, match="ConnectError"):
        fetch(f"https://other.test:{port}/a.png", limits, trust=trust)
    next(running, None)


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "jsonl", "path": str(path), "id_column": "id", "url_hosts": ["127.0.0.1"]} | more


def test_fetched_bytes_are_part_of_the_identity(tmp_path: Path, pictures: tuple[str, type[Pictures]]) -> None:
    place, server = pictures
    server.down.add("late.png")
    row = {"question": "Is it red?", "answer": "yes"}
    names = ["a.png", "late.png", "page.html", "beyond.png"]
    path = write_lines(tmp_path / "rows.jsonl", [row | {"id": name, "image": f"{place}/{name}"} for name in names])
    given = settings(path, url_folder=str(tmp_path / "fetched"), limit=3)
    with pytest.raises(DataError, match=r"is a URL; set samples\.url_folder to have https fetched"):
        import_samples(tmp_path / "store", **{key: value for key, value in given.items() if "url" not in key})
    assert server.seen == []
    first = import_samples(tmp_path / "store", **given)
    (sample,) = first.rows()
    assert (sample["images"][0]["bytes"], sample["images"][0]["path"]) == (PICTURE, "a.png")
    assert {row["sample_id"]: row["detail"].rpartition(": ")[2] for row in first.rows("dropped")}.keys() == {
        "late.png",
        "page.html",
    }
    assert "the server answered 503" in next(iter(first.rows("dropped")))["detail"]
    assert sorted(path for path, _ in server.seen) == ["/a.png", "/late.png", "/page.html"], (
        "each once, none beyond limit"
    )
    listed = first.manifest.identity["external"]["url_folder"]
    assert listed["files"] == 3
    assert str(tmp_path) not in str(first.manifest.identity)

    server.down.clear()
    assert import_samples(tmp_path / "store", **given).ref == first.ref, "a failure holds within a process"
    urls._tried.clear()  # the next process
    later = import_samples(tmp_path / "store", **given)
    assert later.ref.digest != first.ref.digest
    assert [row["sample_id"] for row in later.rows()] == ["a.png", "late.png"]
    asked = len(server.seen)
    assert import_samples(tmp_path / "other", **given).ref.content == later.ref.content, "without asking the server"
    assert len(server.seen) == asked


def test_urls_in_parquet_and_beside_bytes(tmp_path: Path, pictures: tuple[str, type[Pictures]]) -> None:
    place, server = pictures
    rows = [
        {"id": "url", "image": {"bytes": None, "path": f"{place}/a.png"}, "question": "Is it red?", "answer": "yes"},
        {"id": "own", "image": {"bytes": PICTURE, "path": f"{place}/b.png"}, "question": "Is it red?", "answer": "yes"},
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "rows.parquet")
    for source in ("parquet", "dataset"):
        given = settings(tmp_path / "in", source=source, url_folder=str(tmp_path / source))
        reader = import_samples(tmp_path / "store", **given)
        assert [opened(row["images"][0]["bytes"]).tobytes() for row in reader.rows()] == [picture().tobytes()] * 2
    assert {path for path, _ in server.seen} == {"/a.png"}, "what comes with bytes is not fetched"


def test_a_killed_fetch_leaves_no_half_file(tmp_path: Path, pictures: tuple[str, type[Pictures]]) -> None:
    folder = UrlFolder(SamplesConfig(**settings(Path("x"), url_folder=str(tmp_path / "f"))))
    (file,) = folder.fetch([f"{pictures[0]}/a.png"])
    assert file.read_bytes() == PICTURE
    assert [found.name for found in file.parent.iterdir()] == [file.name]
