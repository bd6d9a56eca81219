"""The container file and the Kubernetes template are consistent; neither can be run here (no container engine)."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools import is_valid_schema, validate
from prefect.utilities.templating import apply_values, find_placeholders

ROOT = Path(__file__).resolve().parents[1]
CONTAINERFILE = ROOT / "deployments" / "container" / "Containerfile"
POOL = ROOT / "deployments" / "kubernetes-pool.json"
SECRETS = re.compile(r"AUTH_STRING|ACCESS_KEY|SECRET_|PASSWORD|TOKEN\b|API_KEY", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text) in order; comments and line breaks are gone."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in words]


def of(name: str) -> list[str]:
    return [text for found, text in instructions() if found == name]


def copied() -> list[str]:
    return [source for text in of("COPY") for source in text.split()[:-1]]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for text in of("ENV") for pair in text.split())


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = CONTAINERFILE.with_name("Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert sorted(copied()) == sorted(allowed)
    for source in copied():
        assert (ROOT / source).exists(), source
    assert not any(fnmatch.fnmatch(name, rule) for name in (".env", ".git", "runs") for rule in allowed)


def test_everything_that_the_wheel_is_made_of_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = (\[.*\])$", project, re.MULTILINE)
    assert packages
    assert {*json.loads(packages[1]), "deployments", "README.md", "LICENSE", "pyproject.toml"} <= set(copied())


def test_every_installation_is_pinned() -> None:
    installs = [step for text in of("RUN") for step in text.split("&&") if "pip install" in step]
    assert len(installs) == 2
    assert all("-c constraints.txt" in step for step in installs)
    (base,) = [text for text in of("ARG") if text.startswith("CUDA=")]
    assert re.fullmatch(r"CUDA=docker\.io/nvidia/cuda:\d+\.\d+\.\d+-runtime-ubuntu\d\d\.04", base)


def test_it_runs_as_nobody_special_and_offline() -> None:
    (user,) = of("USER")
    assert user == "10001:10001"
    names = [name for name, _ in instructions()]
    assert "RUN" not in names[names.index("USER") :]
    known = environment()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"):
        assert known[name] == "1"
    assert known["MBPO_STORE"].startswith("/data/")
    assert [json.loads(text) for text in of("ENTRYPOINT")] == [["tini", "--"]]
    assert [json.loads(text)[:3] for text in of("CMD")] == [["prefect", "worker", "start"]]


def test_the_image_holds_no_secret() -> None:
    assert not [name for name in [*environment(), *of("ARG")] if SECRETS.search(name)]


@pytest.fixture(scope="module")
def pool() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(POOL.read_text(encoding="utf-8"))
    return found


def pod(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    return found


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_every_variable_is_used_declared_and_explained(pool: dict[str, Any]) -> None:
    assert set(pool) == {"job_configuration", "variables"}
    variables = pool["variables"]["properties"]
    assert {found.name for found in find_placeholders(pool["job_configuration"])} == set(variables)
    for name, variable in variables.items():
        assert variable["title"], name
        assert variable["description"].endswith("."), name
    assert is_valid_schema(pool["variables"], preprocess=False) is None
    defaults = {name: variable["default"] for name, variable in variables.items() if "default" in variable}
    assert validate(defaults, pool["variables"]) == []
    assert validate({"gpus": -1}, pool["variables"], raise_on_error=False)


def rendered(pool: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The pod that Prefect makes of the template."""
    variables = pool["variables"]["properties"]
    defaults = {name: variable["default"] for name, variable in variables.items() if "default" in variable}
    made = apply_values(pool["job_configuration"], {**defaults, "name": "run", "command": "go", **values})
    assert not list(find_placeholders(made))
    return pod({"job_configuration": made})


def test_prefect_makes_a_pod_of_it(pool: dict[str, Any]) -> None:
    made = rendered(pool, gpus=4, store="s3://bucket/mbpo", secret="ours", shared_memory="1Gi")
    (container,) = made["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert {entry["name"]: entry["value"] for entry in container["env"]}["MBPO_STORE"] == "s3://bucket/mbpo"
    assert container["envFrom"] == [{"secretRef": {"name": "ours"}}]
    sizes = [volume["emptyDir"]["sizeLimit"] for volume in made["volumes"] if "emptyDir" in volume]
    assert sizes == ["1Gi"]
    assert rendered(pool)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_job_is_tried_once_and_given_time_to_end(pool: dict[str, Any]) -> None:
    """Retries are the flow's, which knows what may be retried; Kubernetes must not start it again beside that."""
    assert pool["job_configuration"]["job_manifest"]["spec"]["backoffLimit"] == 0
    assert pod(pool)["restartPolicy"] == "Never"
    grace = pool["variables"]["properties"]["grace_period_s"]
    assert grace["minimum"] >= 20
    assert grace["default"] >= grace["minimum"]


def test_the_pod_is_the_images_user_without_rights(pool: dict[str, Any]) -> None:
    spec, (container,) = pod(pool), pod(pool)["containers"]
    (user,) = of("USER")
    context = spec["securityContext"]
    assert context["runAsNonRoot"]
    assert [context["runAsUser"], context["runAsGroup"]] == [int(part) for part in user.split(":")]
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_volumes_are_mounted_where_the_image_expects_them(pool: dict[str, Any]) -> None:
    spec, (container,) = pod(pool), pod(pool)["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in spec["volumes"]} == set(mounts)
    assert set(mounts.values()) == {*of("VOLUME"), "/dev/shm"}


def test_the_template_holds_no_secret(pool: dict[str, Any]) -> None:
    """Secrets come from a Kubernetes Secret by its name; nothing in the template names or sets one by value."""
    (container,) = pod(pool)["containers"]
    assert not [entry for entry in container["env"] if SECRETS.search(entry["name"])]
    assert not [text for text in strings(pool["job_configuration"]) if SECRETS.search(text)]
    assert pool["variables"]["properties"]["env"]["default"] == {}
