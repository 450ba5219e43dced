"""Values that cannot work are refused, with a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from helm_chart import CHART, QDRANT, ROOT, environment, of_kind, refusal, render, workloads
from raglan_ingester.sources import config

MISTAKES = {
    "unknown key": (("--set", "replicas=2"), "additional properties 'replicas' not allowed"),
    "unknown key of a service": (("--set", "services.embedder.replica=2"), "'replica'"),
    "unknown setting": (
        ("--set", "services.embedder.settings.max_text=3"),
        "additional properties 'max_text' not allowed",
    ),
    "impossible setting": (
        ("--set-json", "services.embedder.settings.bulk_share=1.5"),
        "/services/embedder/settings/bulk_share': exclusiveMaximum: got 1.5, want 1",
    ),
    "impossible choice": (
        ("--set", "services.generator.settings.engine=ollama"),
        "/services/generator/settings/engine",
    ),
    "setting that the chart makes": (
        ("--set", "services.embedder.settings.port=1"),
        "additional properties 'port' not allowed",
    ),
    "secret in the open": (
        ("--set", "services.generator.settings.api_key=abc"),
        "additional properties 'api_key' not allowed",
    ),
    "two Edge retrievers": (
        ("--set", "services.retriever.replicas=2"),
        "services.retriever may have 2 replicas, but the embedded index (Qdrant Edge) belongs to "
        "one process: keep 1, or give qdrant.url or qdrant.bundled.",
    ),
    "an Edge retriever that scales": (
        (
            "-f",
            "values-autoscale.yaml",
            "--set",
            "services.retriever.autoscaling.enabled=true,services.retriever.autoscaling.maxReplicas=3",
        ),
        "services.retriever may have 3 replicas",
    ),
    "two ingesters on SQLite": (
        ("--set", "services.ingester.replicas=2"),
        "services.ingester may have 2 replicas, but its SQLite file belongs to one process",
    ),
    "two ingesters, two folders": (
        ("--set", "services.ingester.replicas=2,postgresql.existingSecret=db,postgresql.key=uri"),
        "services.ingester may have 2 replicas, which need one folder of documents",
    ),
    "one folder on one node": (
        (
            "--set",
            "services.ingester.replicas=2,postgresql.existingSecret=db"
            ",services.ingester.persistence.shared=true",
        ),
        "services.ingester.persistence.shared with 2 replicas needs accessModes: [ReadWriteMany].",
    ),
    "two tracers": (("--set", "services.tracer.replicas=2"), "services.tracer may have 2 replicas"),
    "shares above one": (
        ("-f", "values-small.yaml", "--set", "services.embedder.replicas=4"),
        "The memory shares of GPU shared add up to 1.25 (embedder 4 x 0.1, generator 1 x 0.75, "
        "reranker 1 x 0.1): the limit is 1.",
    ),
    "no share": (
        ("-f", "values-small.yaml", "--set", "services.embedder.gpu.memoryShare=0"),
        "services.embedder shares the GPU shared: give its part of the memory",
    ),
    "unknown GPU": (
        ("--set", "services.embedder.gpu.name=big"),
        "services.embedder.gpu.name is big, but gpus has no entry.",
    ),
    "GPU of the gateway": (
        ("-f", "values-gpu.yaml", "--set", "services.gateway.gpu.name=whole"),
        "services.gateway.gpu.name is whole, but this service uses no GPU",
    ),
    "vLLM without a GPU": (
        ("--set", "services.generator.settings.engine=vllm"),
        "services.generator.settings.engine is vllm, but services.generator.gpu.name names no GPU",
    ),
    "GPU without a model": (
        ("--set", "gpus.one.kind=whole,services.generator.gpu.name=one"),
        "services.generator.settings.model names no model for it.",
    ),
    "model without a place": (
        ("--set", "services.embedder.settings.model=BAAI/bge-m3"),
        "services.embedder.settings.model is BAAI/bge-m3, which has to be downloaded: set "
        "modelCache.enabled",
    ),
    "model that is a command": (
        ("--set", "services.embedder.settings.model=a/b; rm -rf $HOME,modelCache.enabled=true"),
        "/services/embedder/settings/model",
    ),
    "KEDA without Prometheus": (
        ("--set", "autoscaling.kind=keda"),
        "autoscaling.kind is keda, but autoscaling.prometheus.address is empty",
    ),
    "reversed replicas": (
        (
            "-f",
            "values-autoscale.yaml",
            "--set",
            "services.embedder.autoscaling.minReplicas=9",
        ),
        "services.embedder.autoscaling: minReplicas is 9 and maxReplicas 8.",
    ),
    "service that is nowhere": (
        ("--set", "services.reranker.enabled=false"),
        "services.reranker.enabled is false: give host:port",
    ),
    "two databases": (
        ("--set", "postgresql.bundled=true,postgresql.url=postgresql://db/raglan"),
        "postgresql.bundled and postgresql.url are both set: keep one.",
    ),
    "another kind of database": (
        ("--set", "redis.url=postgresql://db/raglan"),
        "/redis/url': 'postgresql://db/raglan' does not match pattern '^(rediss?://",
    ),
    "key without a Qdrant": (
        ("--set", "qdrant.existingSecret=qdrant"),
        "qdrant.existingSecret is set without a Qdrant: give qdrant.url, or set qdrant.bundled.",
    ),
    "section taken away": (("--set", "postgresql=null"), "missing property 'postgresql'"),
    "name that no Service may have": (("--set", "fullnameOverride=9.rag"), "/fullnameOverride"),
    "negative replicas": (("--set", "services.gateway.replicas=-1"), "minimum: got -1, want 0"),
    "amount in words": (
        ("--set", "services.gateway.resources.limits.memory=lots"),
        "/services/gateway/resources/limits/memory': 'lots' does not match pattern",
    ),
    "liveness that needs two successes": (
        ("--set", "services.gateway.probes.liveness.successThreshold=2"),
        "/services/gateway/probes/liveness/successThreshold",
    ),
    "model service that goes to zero": (
        (
            *("-f", "values-autoscale.yaml"),
            *("--set", "services.embedder.autoscaling.minReplicas=0"),
        ),
        "services.embedder.autoscaling.minReplicas is 0, but without a replica nothing reports its "
        "load and it would never start again: the least is 1.",
    ),
    "backup of an ingester that sleeps": (
        ("-f", "values-autoscale.yaml", "--set", "backup.enabled=true"),
        "a backup asks the ingester, and does not wake it. Set minReplicas to 1.",
    ),
    "schedule in words": (("--set", "backup.schedule=nightly"), "/backup/schedule"),
    "one port for two": (
        ("--set", "services.embedder.port=9100"),
        "services.embedder uses port 9100 twice",
    ),
    "variable given twice": (
        (
            "--set-json",
            'services.gateway.extraEnv=[{"name":"A","value":"1"},{"name":"A","value":"2"}]',
        ),
        "services.gateway.extraEnv has A twice: keep one.",
    ),
    "password in a URL": (
        ("--set", "redis.url=redis://:secret@redis:6379/0"),
        "redis.url holds a password: leave it out, and name the Secret that holds it in "
        "redis.existingSecret.",
    ),
    "two indexes": (
        (*QDRANT, "--set", "qdrant.bundled=true"),
        "qdrant.bundled and qdrant.url are both set: keep one.",
    ),
    "ingress without a host": (("--set", "ingress.enabled=true"), "ingress.hosts is empty"),
    "time slices by number": (
        ("-f", "values-small.yaml", "--set", "gpus.shared.count=2"),
        "/gpus/shared/count",
    ),
    "device class of a whole GPU": (
        ("--set", "gpus.one.kind=whole,gpus.one.deviceClassName=gpu.nvidia.com"),
        "gpus.one.deviceClassName is for kind dra alone; the kind is whole.",
    ),
    "MIG slice without a name": (("--set", "gpus.slice.kind=mig"), "missing property 'resource'"),
    "bundled server with replicas": (
        ("--set", "redis.bundled=true,bundled.redis.replicas=3"),
        "bundled.redis has 3 replicas: the bundled servers are single ones",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_refused_with_a_sentence(mistake: str) -> None:
    options, sentence = MISTAKES[mistake]
    assert sentence in refusal(*options)


def test_an_external_service_needs_only_its_address() -> None:
    objects = render(
        "--set",
        "services.reranker.enabled=false,services.reranker.address=reranker.models.svc:7103",
    )
    assert "reranker" not in workloads(objects)


def test_the_schema_is_generated() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "deploy" / "helm" / "values_schema.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert (CHART / "values.schema.json").read_text() == printed, "run make chart-schema"


SOURCE = {"name": "wiki", "kind": "folder", "path": "/srv/wiki", "collection": "default"}


def test_sources_reach_the_ingester_as_a_file() -> None:
    """The folder is mounted: a file by subPath would keep the ConfigMap's first content."""
    objects = render("--set-json", f"sources.entries=[{json.dumps(SOURCE)}]")
    file = of_kind(objects, "ConfigMap")["ingester"]
    text = file["data"]["sources.yaml"]
    assert config.parse(text.encode(), "sources.yaml").keys() == {"wiki"}
    services = workloads(objects)
    assert environment(services["ingester"])["RAGLAN_INGESTER_SOURCES_FILE"] == (
        "/etc/raglan/sources/sources.yaml"
    )
    mounted = {service: _mounted(workload) for service, workload in services.items()}
    assert {service: found for service, found in mounted.items() if found} == {
        "ingester": file["metadata"]["name"]
    }


def test_sources_of_a_config_map_of_your_own_are_mounted() -> None:
    objects = render("--set", "sources.existingConfigMap=mine,sources.key=all.yaml")
    ingester = workloads(objects)["ingester"]
    assert environment(ingester)["RAGLAN_INGESTER_SOURCES_FILE"] == "/etc/raglan/sources/all.yaml"
    assert _mounted(ingester) == "mine"
    assert "ingester" not in of_kind(objects, "ConfigMap")


def _mounted(workload: dict[str, Any]) -> str:
    """The ConfigMap at /etc/raglan/sources; empty where there is none."""
    pod = workload["spec"]["template"]["spec"]
    names = {
        each["name"]
        for each in pod["containers"][0]["volumeMounts"]
        if each["mountPath"] == "/etc/raglan/sources" and each["readOnly"]
    }
    return "".join(each["configMap"]["name"] for each in pod["volumes"] if each["name"] in names)
