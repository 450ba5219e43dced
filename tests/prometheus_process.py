"""Debian's Prometheus over a mesh, with the configuration that is shipped."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import ports
import pytest
import yaml

SHIPPED = Path(__file__).parents[1] / "deploy" / "observability"
SERVICES = {"gateway", "embedder", "retriever", "reranker", "generator", "ingester", "tracer"}
START_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    client: httpx.Client

    def api(self, path: str, **parameters: str) -> Any:
        """What `/api/v1/<path>` says."""
        reply = self.client.get(f"/api/v1/{path}", params=parameters)
        if reply.is_server_error:  # it starts
            reply.raise_for_status()
        body: Mapping[str, Any] = reply.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        return body["data"]

    def names(self) -> set[str]:
        """Of every metric that it has seen."""
        return set(self.api("label/__name__/values"))

    def up(self) -> set[str]:
        """The services that it could scrape."""
        found = self.api("query", query='up{job="raglan"} == 1')["result"]
        return {each["metric"]["component"] for each in found}


@contextmanager
def watching(mesh: mesh_process.Mesh, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that has scraped every process of `mesh` and evaluated every rule."""
    if not (binary := shutil.which("prometheus")):
        pytest.fail("There is no prometheus: apt-get install prometheus")
    port = ports.free_port()
    command = [
        binary,
        f"--config.file={_configured(mesh, folder)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
    try:
        prometheus = Prometheus(client)
        what = f"every process is scraped; see {log}"
        mesh_process.until(lambda: prometheus.up() == SERVICES, within_s=START_S, what=what)
        mesh_process.until(lambda: _evaluated(prometheus), within_s=START_S, what="rules have run")
        yield prometheus
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def _configured(mesh: mesh_process.Mesh, folder: Path) -> Path:
    """What is shipped, but for this mesh, and quicker."""
    shipped = SHIPPED / "prometheus"
    config = yaml.safe_load((shipped / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(_quicker(shipped / name, folder)) for name in config["rule_files"]]
    (raglan,) = [each for each in config["scrape_configs"] if each["job_name"] == "raglan"]
    (discovery,) = raglan["http_sd_configs"]
    discovery["url"] = discovery["url"].replace("http://127.0.0.1:8080", mesh.url)
    config["scrape_configs"] = [raglan]
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _quicker(rules: Path, folder: Path) -> Path:
    document = yaml.safe_load(rules.read_text())
    for group in document["groups"]:
        group["interval"] = "1s"
    path = folder / rules.name
    path.write_text(yaml.safe_dump(document))
    return path


def _evaluated(prometheus: Prometheus) -> bool:
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    return bool(rules) and recorded <= prometheus.names() and all(_healthy(r) for r in rules)


def _healthy(rule: Mapping[str, Any]) -> bool:
    assert rule["health"] != "err", f"{rule['name']}: {rule['lastError']}"
    return bool(rule["health"] == "ok")
