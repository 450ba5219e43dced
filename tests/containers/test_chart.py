"""The rendered chart in containers: `podman kube play` of its pods, as far as podman knows them.

Podman has no Services, probes of gRPC or network policies. Environment, volumes, rights and the
names by which services call each other are those of the chart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from containers.engine import EngineError, Podman
from helm_chart import as_pods, component, container, render, workloads
from raglan.settings import SERVICES

pytestmark = pytest.mark.timeout(900)

OBJECTS = render(
    "--set=image.registry=localhost,image.pullPolicy=Never",
    # Podman has no projected volumes, in which the key would be.
    "--set=services.gateway.settings.anonymous=allow",
)
NETWORK = "chart"
_START_S = 180


@pytest.fixture(scope="module")
def mesh(images: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman, with every pod of the default chart, ready."""
    file = tmp_path_factory.mktemp("chart") / "pods.yaml"
    file.write_text(yaml.safe_dump_all(as_pods(OBJECTS), sort_keys=False))
    images("network", "create", NETWORK)
    try:
        images("kube", "play", "--network", NETWORK, str(file), timeout_s=_START_S)
        wait_until_started(images)
        yield images
    finally:
        images("pod", "rm", "--all", "--force", "--time", "1", check=False)
        images("volume", "prune", "--force", check=False)
        images("network", "rm", "--force", NETWORK, check=False)


def wait_until_started(podman: Podman) -> None:
    """Wait until the gateway has seen every service serving."""
    until = time.monotonic() + _START_S
    while True:
        try:
            podman("exec", name_of("gateway"), "raglan-health", "http://127.0.0.1:8080/startupz")
        except EngineError as error:
            if time.monotonic() > until:
                logs = [podman("logs", "--tail", "5", name_of(each)) for each in SERVICES]
                raise AssertionError("\n".join([str(error), *logs])) from error
            time.sleep(1)
        else:
            return


def name_of(service: str) -> str:
    """The container of a service."""
    return f"raglan-{service}-{service}"


def test_probes_of_the_chart_pass(mesh: Podman) -> None:
    """By the command that asks the same question as the kubelet's gRPC probe."""
    for service in set(SERVICES) - {"gateway"}:
        own = container(workloads(OBJECTS)[service])
        for probe in ("readinessProbe", "livenessProbe"):
            asked = own[probe]["grpc"]
            live = ["--live"] if asked["service"] == "live" else []
            address = f"127.0.0.1:{asked['port']}"
            mesh("exec", name_of(service), "raglan-health", address, "--service", service, *live)


def test_pods_have_no_rights_and_write_to_volumes_alone(mesh: Podman) -> None:
    for service in SERVICES:
        state = mesh.inspect("container", name_of(service))
        assert state["Config"]["User"] == "10001:10001"
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert not state["EffectiveCaps"]
        assert not any(state["NetworkSettings"]["Ports"].values())


def test_the_test_of_the_chart_passes(mesh: Podman, tmp_path: Path) -> None:
    """`helm test`: one document in, one cited answer out."""
    pod: dict[str, Any] = next(
        each for each in OBJECTS if each["kind"] == "Pod" and component(each) == "test"
    )
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(pod))
    mesh("kube", "play", "--network", NETWORK, str(file))
    ended = mesh("wait", "raglan-test-ask", timeout_s=_START_S).strip()
    assert ended == "0", mesh("logs", "raglan-test-ask")
