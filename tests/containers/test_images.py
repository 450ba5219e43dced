"""Every image as an operator meets it: its size, its user, its health, its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from containers.engine import EngineError, Podman
from containers.services import LIMITS_MB, PORTS, image

pytestmark = pytest.mark.timeout(1500)

COMPILERS = "gcc g++ cc c++ clang ld as make cargo rustc go"
ALONE = {
    "gateway": "RAGLAN_GATEWAY_ANONYMOUS=allow",
    "ingester": "RAGLAN_INGESTER_EMBEDDER_ADDRESS=127.0.0.1:7101",
}
GRACE_S = 10.5
"""What a service gives running calls (`shutdown_grace_s`) and its last word."""
START_S = 120


@contextmanager
def running(podman: Podman, service: str, *options: str) -> Iterator[str]:
    """A container of `service` with a read-only root, without any capability."""
    name = f"raglan-{service}"
    podman(
        "run", "--detach", "--name", name, "--read-only", "--read-only-tmpfs=false",
        "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none",
        *options, image(service),
    )  # fmt: skip
    try:
        yield name
    finally:
        podman("rm", "--force", "--time", "1", "--volumes", name, check=False)


def is_well(podman: Podman, name: str) -> bool:
    try:
        podman("healthcheck", "run", name)
    except EngineError:
        return False
    return True


def wait_until_well(podman: Podman, name: str) -> None:
    begun = time.monotonic()
    while not is_well(podman, name):
        state = podman.inspect("container", name)["State"]
        log = podman("logs", name, check=False)
        assert state["Status"] == "running", log
        assert time.monotonic() - begun < START_S, log
        time.sleep(0.5)


@pytest.mark.parametrize("name", LIMITS_MB)
def test_an_image_is_small_and_holds_no_compiler(images: Podman, name: str) -> None:
    assert images.size_mb(image(name)) < LIMITS_MB[name]
    looked = f"for each in {COMPILERS}; do command -v $each; done; command -v pip; id -u; id -g"
    found = images(
        "run", "--rm", "--network=none", "--read-only", "--entrypoint=/bin/sh", image(name),
        "-c", looked,
    )  # fmt: skip
    assert found.split() == ["10001", "10001"]


@pytest.mark.parametrize("name", LIMITS_MB)
def test_an_image_says_what_it_is(images: Podman, name: str) -> None:
    config = images.inspect("image", image(name))["Config"]
    assert config["User"] == "10001:10001"
    assert config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15")
    labels = {
        key.removeprefix("org.opencontainers.image."): v for key, v in config["Labels"].items()
    }
    assert labels["title"] == f"raglan/{name}"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"]
    assert len(labels["revision"]) == 40


@pytest.mark.parametrize("service", PORTS)
def test_a_service_serves_from_a_read_only_root_and_stops_in_time(
    images: Podman, service: str
) -> None:
    """As process 1, to which the kernel delivers no signal that it does not handle."""
    options = ["--env=" + ALONE[service]] if service in ALONE else []
    with running(images, service, *options) as name:
        if service == "gateway":  # not ready without a retriever, and alive
            wait_until_it_listens(images, name)
        else:
            wait_until_well(images, name)
        begun = time.monotonic()
        images("stop", "--time", "60", name)
        assert time.monotonic() - begun < GRACE_S + 5
        assert images.inspect("container", name)["State"]["ExitCode"] == 0, images(
            "logs", name, check=False
        )


@pytest.mark.parametrize("service", PORTS)
def test_every_module_finds_what_it_imports(images: Podman, service: str) -> None:
    """A package that only the tests install would be missing here."""
    program = f"""
import importlib, pkgutil, sys, raglan_{service}
missing = set()
for module in pkgutil.walk_packages(raglan_{service}.__path__, "raglan_{service}."):
    if not module.name.endswith(("__main__", "migrations.env")):  # programs, the latter alembic's
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing.add(error.name)
print(*missing)
"""
    found = images(
        "run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image(service),
        "-c", program,
    )  # fmt: skip
    # The variants with -gpu and -vllm have these.
    assert set(found.split()) <= {"psutil", "sentence_transformers", "vllm"}


def wait_until_it_listens(podman: Podman, name: str) -> None:
    begun = time.monotonic()
    while True:
        try:
            podman("exec", name, "raglan-health", "http://127.0.0.1:8080/healthz")
        except EngineError:
            assert time.monotonic() - begun < START_S, podman("logs", name, check=False)
            time.sleep(0.5)
        else:
            break
    assert not is_well(podman, name)
