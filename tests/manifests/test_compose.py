"""compose.yaml: parts, ports and addresses as with `make up`, started in order; no more rights than in a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions.runtime.settings import load
from knative.local import manifests as m
from knative.local.parts import BROKER, GATEWAY
from knative.local.ports import DOMAINS as NUMBERS
from knative.local.ports import GRPC, HTTP
from knative.setup import compose
from tests.architecture import domains
from tests.manifests import variables
from tests.manifests.conftest import ROOT

FILE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
DOMAINS = domains(ROOT)
OURS = {*DOMAINS, GATEWAY, BROKER, "setup", "tick", "catalogue"}
PORTS = {
    "gateway": [8080],
    **{name: [HTTP + number, GRPC + number] for name, number in NUMBERS.items()},
    "broker": [8090],
    "prometheus": [9090],
    "jaeger": [16686],
    "logs": [9428],
    "grafana": [3000],
}
HOST = "${CONTAINERS:-/var/lib/docker/containers}"
_READ = re.compile(r"""environ(?:\.get)?[\[(]["']([A-Z_]+)["']""")


def environment(name: str) -> dict[str, str]:
    """With each ${VARIABLE:-default} at its default."""
    given = SERVICES[name]["environment"]
    return {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in given.items()}


def test_everything_is_at_the_ports_that_people_expect_and_on_this_machine_only() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {name: [f"127.0.0.1:{n}:{n}" for n in numbers] for name, numbers in PORTS.items()}


def test_core_is_the_platform_and_full_is_all() -> None:
    for name, service in SERVICES.items():
        assert service["profiles"] == (["core", "full"] if name in OURS else ["full"]), name
    assert set(DOMAINS) < SERVICES.keys()


@pytest.mark.parametrize("name", [*DOMAINS, GATEWAY])
def test_a_part_is_told_nothing_that_its_settings_do_not_know(name: str) -> None:
    given = environment(name)
    assert not list(variables.unknown(name, given))
    load(variables.settings_of(name), given)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("broker", "knative/local/broker"),
        ("setup", "knative/setup"),
        ("tick", "knative/setup"),
        ("catalogue", "knative/setup"),
    ],
)
def test_what_else_is_set_is_read_by_somebody(name: str, folder: str) -> None:
    sources = [path.read_text() for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts]
    read = {variable for source in sources for variable in _READ.findall(source)} | {"ADMIN_PASSWORD"}
    shared = FILE["x-environment"].keys()
    assert environment(name).keys() - shared <= read


@pytest.mark.parametrize("name", [*DOMAINS, GATEWAY])
def test_parts_find_each_other_where_the_manifests_say(name: str, base: m.Manifests) -> None:
    local = compose.local(ROOT / "knative" / "base")
    image = f"shop/{name}" if name == GATEWAY else f"shop/functions-{name}"
    services = [s for s in base.of(m.SERVING, "Service") if m.container_of(s)["image"] == image]
    assert services
    for variable, value in (pair for s in services for pair in m.environment_of(s, base).items()):
        if (here := local.address(value)) != value:
            assert environment(name)[variable] == here, variable


@pytest.mark.parametrize("name", [*DOMAINS, GATEWAY, BROKER])
def test_a_part_opens_the_doors_that_are_published(name: str) -> None:
    given = environment(name)
    ports = [int(given[key]) for key in ("HTTP_PORT", "GRPC_PORT") if key in given]
    assert ports == PORTS[name]


def test_whoever_is_waited_for_says_when_it_is_there() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            check = SERVICES[other]["healthcheck"]
            if how["condition"] == "service_healthy":
                assert "test" in check, f"{name} waits for {other}"
            else:
                assert (how["condition"], SERVICES[other]["restart"]) == (
                    "service_completed_successfully",
                    "on-failure",
                )


def test_whoever_listens_is_asked_for_its_health() -> None:
    assert not [
        name for name, service in SERVICES.items() if "ports" in service and "test" not in service["healthcheck"]
    ]


def test_every_image_is_ours_and_has_a_dockerfile_or_is_pinned() -> None:
    for name, service in SERVICES.items():
        if name in OURS:
            assert re.fullmatch(r"\$\{REGISTRY:-dev\.local\}/shop/[a-z-]+:\$\{TAG:-dev\}", service["image"]), name
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        else:
            assert re.fullmatch(r"[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", service["image"]), name


def test_no_container_of_ours_may_more_than_in_a_cluster() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True, name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name


def test_only_the_collector_of_logs_sees_a_folder_of_the_machine_and_may_not_write_there() -> None:
    mounts = {name: [m for m in s.get("volumes", ()) if HOST in str(m)] for name, s in SERVICES.items()}
    assert {name: found for name, found in mounts.items() if found} == {"log-collector": [f"{HOST}:/containers:ro"]}
    assert SERVICES["log-collector"]["cap_drop"] == ["ALL"]


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in (v for v in service.get("volumes", ()) if isinstance(v, str) and not v.startswith(HOST)):
            source, target, *mode = mount.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), mount
                assert mode == ["ro"], mount
            else:
                assert source in FILE["volumes"], mount
            assert Path(target).is_absolute()
        for long in (v for v in service.get("volumes", ()) if isinstance(v, dict)):
            assert (long["type"], long["source"], long["read_only"]) == ("volume", "setup", True)
            assert long["target"].startswith("/setup/")
    assert {s for v in SERVICES.values() for s in v.get("env_file", "").split()} == {"knative/base/settings.env"}


@pytest.mark.parametrize("name", sorted(OURS - {"setup", "tick"}))
def test_a_part_sees_its_own_private_key_and_no_others(name: str) -> None:
    mounts = [m for m in SERVICES[name].get("volumes", ()) if isinstance(m, dict)]
    seen = {mount["volume"]["subpath"]: mount["target"] for mount in mounts}
    keys = {subpath: target for subpath, target in seen.items() if subpath.startswith("service-key-")}
    has_one = name in (*DOMAINS, GATEWAY)
    assert keys == ({f"service-key-{name}": "/setup/service-key"} if has_one else {})
    assert seen.get("service-keys") == ("/setup/service-keys" if has_one or name == BROKER else None)
    assert ("admin" in seen) == (name in {"users", "catalogue"})
    assert not [m for m in SERVICES[name].get("volumes", ()) if isinstance(m, str) and m.startswith("setup:")]
