"""Scaling objects: by backlog, to zero where it can be, and something to fall back to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import CHART, ROOT, component, of_kind, render, variant, workloads

SERVED = "raglan_gateway_request_duration_seconds_count"


def test_replicas_are_left_to_the_scaler() -> None:
    for name in ("autoscale", "hpa"):
        for service, workload in workloads(variant(name)).items():
            assert ("replicas" in workload["spec"]) is (service in ("retriever", "tracer"))


def test_scaled_objects_name_what_they_scale() -> None:
    running = workloads(variant("autoscale"))
    for service, each in of_kind(variant("autoscale"), "ScaledObject").items():
        target = each["spec"]["scaleTargetRef"]
        assert target["kind"] == running[service]["kind"]
        assert target["name"] == running[service]["metadata"]["name"]


def test_keda_scales_by_backlog() -> None:
    scaled = of_kind(variant("autoscale"), "ScaledObject")
    assert scaled.keys() == {"gateway", "embedder", "reranker", "generator", "ingester"}
    for service in scaled.keys() - {"gateway"}:
        spec = scaled[service]["spec"]
        backlog = spec["triggers"][0]
        query = backlog["metadata"]["query"]
        assert f'raglan_backlog_seconds{{component="{service}",namespace="rag"}}' in query
        threshold = float(backlog["metadata"]["threshold"])
        assert float(backlog["metadata"]["activationThreshold"]) < threshold
        # KEDA takes a fallback for averages alone.
        assert backlog["metricType"] == "AverageValue"
        assert spec["fallback"]["failureThreshold"] >= 1
        assert spec["fallback"]["replicas"] >= 1
        assert spec["cooldownPeriod"] >= 300


def test_the_backlog_of_ingesters_is_counted_once() -> None:
    query = _trigger("ingester", 0)["metadata"]["query"]
    assert query.startswith("max(")
    assert _trigger("embedder", 0)["metadata"]["query"].startswith("sum(")
    metrics = of_kind(variant("hpa"), "HorizontalPodAutoscaler")["ingester"]["spec"]["metrics"]
    assert metrics[0]["type"] == "External"


def test_only_the_ingester_goes_to_zero() -> None:
    scaled = of_kind(variant("autoscale"), "ScaledObject")
    zero = {name for name, each in scaled.items() if each["spec"]["minReplicaCount"] == 0}
    assert zero == {"ingester"}


def test_no_series_is_a_failure_where_a_replica_has_to_be() -> None:
    assert _trigger("embedder", 0)["metadata"]["ignoreNullValues"] == "false"
    assert _trigger("ingester", 0)["metadata"]["ignoreNullValues"] == "true"


CASES: dict[str, tuple[list[tuple[str, str]], float]] = {
    "nothing was ever asked": ([], 0),
    "the first request of all": ([('route="/v1/jobs",status="503"', "_x10 1x5")], 1),
    "a request of a kind that was there": (
        [('route="/v1/collections/{name}/documents",status="503"', "4x10 5x5")],
        1,
    ),
    "an old request": ([('route="/v1/jobs",status="503"', "1x15")], 0),
    "a search": ([('route="/v1/search",status="200"', "0x10 50x5")], 0),
    "another namespace": ([('route="/v1/jobs",status="503",other="1"', "_x10 1x5")], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_request_wakes_the_ingester(case: str, tmp_path: Path) -> None:
    """In a real Prometheus: at zero replicas nobody reports a backlog."""
    series, expected = CASES[case]
    query = _trigger("ingester", 1)["metadata"]["query"]
    rules = {"groups": [{"name": "wake", "rules": [{"record": "wake", "expr": query}]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    named = [
        (labels.replace(',other="1"', ',namespace="other"'), values)
        if "other" in labels
        else (f'{labels},namespace="rag"', values)
        for labels, values in series
    ]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": f"{SERVED}{{{labels}}}", "values": values}
                    for labels, values in named
                ],
                "promql_expr_test": [
                    {
                        "expr": "wake > bool 0",
                        "eval_time": "3m",
                        "exp_samples": [{"labels": "{}", "value": expected}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_routes_that_wake_are_those_of_the_ingester() -> None:
    pattern = re.search(r'route=~"([^"]+)"', _trigger("ingester", 1)["metadata"]["query"])
    assert pattern is not None
    reference = (ROOT / "docs/rest.md").read_text()
    routes = set(re.findall(r"^### [A-Z]+ (/\S+)", reference, re.MULTILINE))
    assert len(routes) > 10
    woken = {each for each in routes if re.fullmatch(pattern[1], each)}
    assert woken == {each for each in routes if "/documents" in each or "/jobs" in each}


def test_hpa_asks_for_the_metric_that_the_adapter_has() -> None:
    adapter = yaml.safe_load((CHART.parent / "prometheus-adapter.yaml").read_text())["rules"]
    names = {each["seriesQuery"].partition("{")[0] for each in adapter["custom"]}
    for service, each in of_kind(variant("hpa"), "HorizontalPodAutoscaler").items():
        (metric,) = each["spec"]["metrics"]
        if metric["type"] == "Pods":
            assert metric["pods"]["metric"]["name"] in names
        elif metric["type"] == "External":
            assert metric["external"]["metric"]["name"] == "raglan_backlog_seconds"
        else:
            assert service == "gateway"
        assert each["spec"]["minReplicas"] >= 1


def test_scaled_services_report_their_backlog() -> None:
    """The metric is in the code of each service that is scaled by it, by its component."""
    for each in of_kind(variant("autoscale"), "ScaledObject").values():
        if (service := component(each)) == "gateway":
            continue
        sources = [
            *(ROOT / "services" / service / "src").rglob("*.py"),
            *(ROOT / "services/common/src/raglan/encoders").glob("metrics.py"),
        ]
        assert any('"raglan_backlog_seconds"' in source.read_text() for source in sources)


def test_a_retriever_with_qdrant_scales() -> None:
    objects = render(
        *("-f", "values-autoscale.yaml", "--set"),
        "qdrant.url=http://qdrant:6333,services.retriever.autoscaling.enabled=true",
    )
    assert of_kind(objects, "ScaledObject")["retriever"]["spec"]["scaleTargetRef"]["kind"] == (
        "Deployment"
    )


def _trigger(service: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(variant("autoscale"), "ScaledObject")[service]["spec"][
        "triggers"
    ][number]
    return found
