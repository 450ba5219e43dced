"""The chart and the Compose files run the same services with the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import compose_files
import pytest
import service_settings
from helm_chart import VARIANTS, container, environment, render, workloads
from raglan.settings import SERVICES

OF_THE_CLUSTER = {
    *("allowed_hosts", "log_format", "shutdown_drain_s", "shutdown_grace_s"),
    # Where Compose counts the cores of the container.
    *("device", "streams"),
    *("redis_password", "database_password", "qdrant_api_key"),
}
"""Settings that a cluster sets and a single host does not need."""

OF_THE_GATEWAY = {"gateway": {"data_dir", "database_url", "anonymous", "admin_key"}}
"""In Compose it keeps its rows in a volume of one host, and is published on its loopback; pods of a
Deployment share PostgreSQL, and whoever is in the cluster reaches them."""

PAIRS = (
    ("compose.yaml",),
    ("compose.yaml", "compose.qdrant.yaml"),
)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("files", PAIRS, ids=lambda files: files[-1])
def test_settings_are_the_same(files: tuple[str, ...], service: str, tmp_path: Path) -> None:
    composed = compose_files.load(*files)["services"][service]
    qdrant = ("--set=qdrant.bundled=true",) if "compose.qdrant.yaml" in files else ()
    objects = render("--set=postgresql.bundled=true,redis.bundled=true", *qdrant)
    ours = _settings(service, environment(workloads(objects)[service]), tmp_path)
    theirs = _settings(service, composed["environment"], tmp_path)
    assert ours == theirs


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_the_same(service: str) -> None:
    composed = compose_files.load("compose.yaml")["services"][service]["image"]
    assert composed == container(workloads(render(*VARIANTS["default"]))[service])["image"]


def _settings(service: str, environment: dict[str, Any], folder: Path) -> dict[str, Any]:
    given = {name: str(value) for name, value in environment.items() if value is not None}
    loaded = service_settings.accepted(service, given, folder=folder)
    return {
        name: _comparable(value)
        for name, value in loaded.model_dump().items()
        if name not in OF_THE_CLUSTER | OF_THE_GATEWAY.get(service, set())
    }


def _comparable(value: Any) -> Any:
    """The value without the names of hosts, which differ: "raglan-embedder" and "embedder"."""
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if not isinstance(text, str):
        return text
    host = urlsplit(text if "://" in text else f"//{text}").hostname or ""
    short = host.removeprefix("raglan-").replace("postgresql", "postgres")
    return text.replace(host, short) if host else text
