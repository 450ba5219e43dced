"""Compose and the chart start the same: what one of them changes, the other one changes too."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml
from compose_files import BASE, MIXES, ROOT, load
from service_settings import METRICS_PORT, SERVICES, accepted

CHART: Final[dict[str, Any]] = yaml.safe_load(
    (ROOT / "deploy/helm/raglan/values.yaml").read_text(encoding="utf-8")
)
BUNDLED: Final = {"postgresql": "postgres", "redis": "redis", "qdrant": "qdrant"}
"""Server of the chart -> service of Compose."""


def compose() -> dict[str, Any]:
    services: dict[str, Any] = load(BASE, "compose.qdrant.yaml")["services"]
    return services


def mib(limit: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([mg]|Mi|Gi)", limit).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit in ("g", "Gi") else 1)


def test_the_same_services_run() -> None:
    assert set(CHART["services"]) == set(SERVICES)
    assert set(CHART["bundled"]) == set(BUNDLED)
    assert set(compose()) == {*SERVICES, *BUNDLED.values()}


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_the_same(service: str) -> None:
    (address,) = [each for each in compose()[service]["healthcheck"]["test"] if ":" in each]
    assert f":{CHART['services'][service]['port']}" in address
    assert CHART["metricsPort"] == METRICS_PORT


@pytest.mark.parametrize("server", BUNDLED)
def test_images_of_others_are_the_same(server: str) -> None:
    image = CHART["bundled"][server]["image"]
    ours = compose()[BUNDLED[server]]["image"]
    assert ours.endswith(f"/{image['repository']}:{image['tag']}")


@pytest.mark.parametrize("name", [*SERVICES, *BUNDLED])
def test_limits_of_memory_are_the_same(name: str) -> None:
    held = CHART["services"].get(name) or CHART["bundled"][name]
    resources = held["presets"]["cpu"] if "presets" in held else held["resources"]
    limit = compose()[BUNDLED.get(name, name)]["mem_limit"]
    assert mib(limit) == mib(resources["limits"]["memory"])


def test_limits_of_memory_hold_what_is_set(tmp_path: Any) -> None:
    """Parsers that use all that they may do not end the ingester; nor does a full Redis."""
    services = load(BASE)["services"]
    environment = {name: str(value) for name, value in services["ingester"]["environment"].items()}
    settings: Any = accepted("ingester", environment, folder=tmp_path)
    parsers = settings.parse_workers * settings.parse_memory_bytes / 2**20
    assert mib(services["ingester"]["mem_limit"]) >= parsers + 1024
    script = services["redis"]["entrypoint"][-1]
    (kept,) = re.findall(r"maxmemory (\d+)mb", script)
    assert mib(services["redis"]["mem_limit"]) >= 2 * int(kept)


def test_both_write_where_the_same_volumes_are() -> None:
    """A folder that is restored from one fits the other."""
    services = load(*MIXES[0])["services"]
    persistent = {
        name
        for name, each in CHART["services"].items()
        if each.get("persistence", {}).get("enabled")
    }
    kept = {
        name
        for name in SERVICES
        for volume in services[name].get("volumes", [])
        if volume.endswith(":/var/lib/raglan")
    }
    # Several gateways of the chart keep keys in PostgreSQL, or have one in a Secret.
    assert kept - {"gateway"} == persistent
