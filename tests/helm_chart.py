"""The chart as the real helm renders it, and looks at what came out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "deploy" / "helm" / "raglan"
HELM: Final = ROOT / ".venv-chart" / "bin" / "helm"
KUBECTL: Final = ROOT / ".venv-chart" / "bin" / "kubectl"

QDRANT: Final = ("--set", "qdrant.url=http://qdrant.example:6333,qdrant.existingSecret=qdrant")
POSTGRES: Final = (
    "--set=postgresql.url=postgresql://raglan@db.example:5433/raglan"
    ",postgresql.existingSecret=postgres"
    ",redis.existingSecret=redis,redis.key=uri",
)
"""A URL with the password in a Secret, and a URL that is a Secret itself."""

SEVERAL: Final = (
    *QDRANT,
    *POSTGRES,
    "--set-json=services.ingester.persistence="
    '{"enabled": true, "shared": true, "accessModes": ["ReadWriteMany"]}',
    "--set=services.gateway.replicas=3,services.embedder.replicas=2,services.retriever.replicas=2"
    ",services.ingester.replicas=2",
)

VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "default": (),
    "gpu": ("-f", "values-gpu.yaml"),
    "small": ("-f", "values-small.yaml"),
    "autoscale": ("-f", "values-autoscale.yaml"),
    "observability": ("-f", "values-observability.yaml"),
    "hpa": ("-f", "values-autoscale.yaml", "--set", "autoscaling.kind=hpa"),
    "service-monitor": (
        *("-f", "values-observability.yaml"),
        *("--set", "monitoring.scrape=ServiceMonitor"),
    ),
    "bundled": (
        "--set",
        "postgresql.bundled=true,redis.bundled=true,qdrant.bundled=true",
    ),
    "several": SEVERAL,
    "openshift": ("-f", "values-openshift.yaml"),
    "backup": ("--set", "backup.enabled=true"),
    "sources": (
        "--set-json",
        'sources.entries=[{"name": "wiki", "kind": "folder", "path": "/srv/wiki", '
        '"collection": "default"}]',
    ),
    "tls": ("--set", "tls.existingSecret=mesh-certificates,tls.domain=raglan.svc"),
    "ingress": (
        "--set",
        "ingress.enabled=true,ingress.className=nginx,ingress.hosts[0].host=rag.example.com",
    ),
    "all": (
        *(
            "-f",
            "values-gpu.yaml",
            "-f",
            "values-autoscale.yaml",
            "-f",
            "values-observability.yaml",
        ),
        *("--set", "telemetry.collector=http://collector.tracing:4318,telemetry.content=true"),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    output: str
    error: str


def helm(*arguments: str) -> Outcome:
    """Run helm in the chart's folder."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TZ": "UTC"}
    done = subprocess.run(
        [str(HELM), *arguments],
        cwd=CHART,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@cache
def render(*options: str) -> tuple[dict[str, Any], ...]:
    """Every object of the chart with these options; of a refusal an AssertionError."""
    outcome = helm("template", "raglan", ".", "--namespace", "rag", *options)
    assert outcome.status == 0, outcome.error
    return tuple(each for each in yaml.safe_load_all(outcome.output) if each)


def variant(name: str) -> tuple[dict[str, Any], ...]:
    """Every object of a variant of the chart."""
    return render(*VARIANTS[name])


def refusal(*options: str) -> str:
    """The sentence with which helm refuses these options."""
    outcome = helm("template", "raglan", ".", *options)
    assert outcome.status != 0, "these values were taken"
    return outcome.error


def of_kind(objects: Sequence[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    """Component -> object, of one kind or several."""
    return {component(each): each for each in objects if each["kind"] in kinds}


def workloads(objects: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Component -> Deployment or StatefulSet."""
    return of_kind(objects, "Deployment", "StatefulSet")


def component(thing: dict[str, Any]) -> str:
    """The component that an object or a pod template belongs to."""
    found: str = thing["metadata"]["labels"]["app.kubernetes.io/component"]
    return found


def pods(objects: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and spec of every pod: of workloads, jobs and tests."""
    for each in objects:
        if each["kind"] == "Pod":
            yield f"Pod {component(each)}", each["spec"]
        elif template := pod_template(each):
            yield f"{each['kind']} {component(each)}", template["spec"]


def pod_template(thing: dict[str, Any]) -> dict[str, Any] | None:
    """Metadata and spec of the pods that an object makes; None of one that makes none."""
    if thing["kind"] == "CronJob":
        thing = thing["spec"]["jobTemplate"]
    elif thing["kind"] not in ("Deployment", "StatefulSet", "Job"):
        return None
    found: dict[str, Any] = thing["spec"]["template"]
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """The main container of a workload."""
    found: dict[str, Any] = workload["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(workload: dict[str, Any]) -> dict[str, str]:
    """Variables of the main container that have a value."""
    return {each["name"]: each["value"] for each in container(workload)["env"] if "value" in each}


def ports(workload: dict[str, Any]) -> dict[str, int]:
    """Port name -> number."""
    return {each["name"]: each["containerPort"] for each in container(workload)["ports"]}


def as_pods(objects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Deployments and StatefulSets as single pods, for `podman kube play`, which has no Services.

    Each pod has the name of its Service, under which podman's name server knows it.
    """
    found: list[dict[str, Any]] = []
    for name, workload in workloads(objects).items():
        spec = {**workload["spec"]["template"]["spec"]}
        # Declared ports would be published on the host.
        spec["containers"] = [
            {key: value for key, value in each.items() if key != "ports"}
            for each in spec["containers"]
        ]
        for template in workload["spec"].get("volumeClaimTemplates", []):
            claim = f"{template['metadata']['name']}-{name}"
            found.append({**template, "metadata": {"name": claim}})
            volume = {"name": template["metadata"]["name"]}
            volume["persistentVolumeClaim"] = {"claimName": claim}
            spec["volumes"] = [*spec["volumes"], volume]
        metadata = {
            "name": workload["metadata"]["name"],
            "labels": workload["spec"]["template"]["metadata"]["labels"],
        }
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return found
