"""What `mbpo doctor` says without a server: each finding has a status and, unless all is well, a remedy."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.service import doctor, doctor_machine
from flows.service.check import Check, compare_clock
from mbpo_core.store.local_files import LocalFiles


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server, no hostfile, no accelerators; and nothing that doctor sets stays."""
    before = dict(os.environ)
    for name in ("PREFECT_API_URL", "MBPO_HOSTFILE", "MBPO_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MBPO_DEVICES", "fake:0")
    yield
    os.environ.clear()
    os.environ.update(before)


def _by_name(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_the_installed_packages_fit() -> None:
    checks = _by_name(doctor_machine.look_at_packages())
    assert {"Python", "torch", "transformers", "deepspeed", "prefect", "fastapi", "prefect.server"} <= set(checks)
    assert not [check for check in checks.values() if check.status != "ok"]


@pytest.mark.parametrize(
    ("name", "wanted", "status"),
    [("pydantic", ">=2", "ok"), ("pydantic", ">=99", "wrong"), ("no-such-package", ">=1", "wrong")],
)
def test_a_package_is_compared_with_what_is_wanted(name: str, wanted: str, status: str) -> None:
    check = doctor_machine.look_at_package(name, wanted)
    assert check.status == status
    assert (f"{name}{wanted}" in check.remedy) == (status == "wrong")


def test_a_store_is_probed_and_left_as_it_was(tmp_path: Path) -> None:
    checks = _by_name(doctor_machine.look_at_store(str(tmp_path / "runs")))
    assert checks["store"].status == "ok"
    assert checks["store's clock"].status == "ok"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".lock"]


def test_a_store_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    (check,) = doctor_machine.look_at_store(str(tmp_path / "runs"))
    assert check.status == "wrong"
    assert "MBPO_STORE" in check.remedy


def test_a_store_that_lets_two_create_one_file_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(files: LocalFiles, path: str, data: bytes) -> bool:
        files.write(path, data)
        return True

    monkeypatch.setattr(LocalFiles, "create", create)
    checks = _by_name(doctor_machine.look_at_store(str(tmp_path / "runs")))
    assert checks["store"].status == "wrong"
    assert "twice" in checks["store"].found


@pytest.mark.parametrize(("free_gb", "status"), [(1, "wrong"), (50, "warning"), (500, "ok")])
def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_gb * 1e9))
    check = doctor_machine.look_at_space(tmp_path)
    assert check.status == status
    assert ("mbpo gc" in check.remedy) == (status != "ok")


def test_clocks() -> None:
    assert compare_clock("clock", -5).status == "ok"
    late = compare_clock("clock", -90)
    assert late.status == "wrong"
    assert "-90 s" in late.found


def test_accelerators_and_hostfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("node-a slots=8\nnode-b slots=4\n")
    monkeypatch.setenv("MBPO_HOSTFILE", str(hosts))
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setenv("MBPO_NODE", "node-b")
    checks = _by_name(doctor_machine.look_at_accelerators())
    assert checks["accelerator fake:0"].found == "a fake slot, not held"
    assert checks["hostfile"] == Check("hostfile", "ok", "node-a 8, node-b 4")
    monkeypatch.setenv("MBPO_NODE", "node-c")
    assert _by_name(doctor_machine.look_at_accelerators())["hostfile"].status == "warning"


def test_one_object_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server that is said, and is no error."""
    doctor.examine(str(tmp_path / "runs"), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    (server,) = [check for check in printed["checks"] if check["name"] == "server"]
    assert server["status"] == "warning"
    assert "embedded" in server["found"]
    assert all(check["remedy"] for check in printed["checks"] if check["status"] != "ok")


def test_what_is_wrong_fails_and_the_rest_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,nonsense")
    with pytest.raises(SystemExit) as ended:
        doctor.examine(str(tmp_path / "runs"), as_json=False)
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "MBPO_DEVICES is 'fake:0,nonsense'" in printed
    assert "disk space" in printed
    assert "1 wrong" in printed


def test_nothing_heavy_is_imported() -> None:
    """Doctor must answer where torch is broken."""
    import subprocess

    script = (
        "import sys; from flows.service import doctor_machine as d\n"
        "d.look_at_package('torch', '>=2'); list(d._look_at_torch())\n"
        "print('torch' in sys.modules, 'prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
