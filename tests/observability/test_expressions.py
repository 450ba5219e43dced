"""Every expression of rules and dashboards, asked of a real Prometheus over a real mesh."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import mesh_process
import pytest
import yaml
from prometheus_process import SHIPPED, Prometheus, watching

DASHBOARDS: Final = sorted((SHIPPED / "grafana" / "dashboards").glob("*.json"))
RULES: Final = [SHIPPED / "prometheus" / name for name in ("recording.yaml", "alerts.yaml")]

ELSEWHERE: Final = {
    *("raglan_gpu_memory_used_bytes", "raglan_gpu_memory_total_bytes"),
    "raglan_gpu_utilization_ratio",
    *("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_GPU_UTIL"),
    *("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_SM_CLOCK"),
    *("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    *("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE"),
    "ALERTS",
}
"""What exists only where a GPU, its exporter or a fault is."""

RARE: Final = {("raglan_breaker_state", "open")}
"""Values that a mesh has only when something is wrong."""

PACKAGES: Final = {"raglan_gateway", "raglan_generator", "raglan_ingester", "raglan_cli"}
"""What looks like a metric and is code."""

_WORDS: Final = {"and", "or", "unless", "offset", "bool", "group_left", "group_right"}
_MODIFIER: Final = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
_LITERALS: Final = r"\"[^\"]*\"|'[^']*'"


@pytest.fixture(scope="module")
def prometheus(
    mesh: mesh_process.Mesh, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with watching(mesh, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def of_rules() -> Iterator[tuple[str, str]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


def of_dashboards() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", filled_in(target["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric = variable["query"].removeprefix("label_values(").partition("{")[0]
                yield f"{path.stem}: ${variable['name']}", metric.partition(",")[0]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def filled_in(expression: str) -> str:
    """With what Grafana would put in for its variables."""
    filled = expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
    return re.sub(r"\$\{?[a-z]+\}?", ".*", filled)


def metrics_of(expression: str) -> set[str]:
    """Every name in `expression` that is a metric's."""
    bare = re.sub(_LITERALS, "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(_MODIFIER, " ", bare)
    names = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?", bare)
    return {name for name, call in names if not call and name not in _WORDS}


def grouped_by(expression: str) -> set[str]:
    """Every label that `expression` groups or matches by."""
    lists = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for each in lists for label in each.split(",")} - {""}


def matched(expression: str) -> Iterator[tuple[str, str, str]]:
    """(metric, label, value) of every matcher that asks for one value."""
    for metric, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        # A route's template has braces of its own, and is not looked at.
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            yield metric, label, value


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (le, a) (rate(x_bucket{a=~"b|c"}[5m])) / 2', {"x_bucket"}),
        ("a:b:c > on(slo) 14.4 * d unless e offset 1d", {"a:b:c", "d", "e"}),
        ("histogram_quantile(0.99, f) > bool 1e3", {"f"}),
    ],
)
def test_names_of_metrics_are_found_in_an_expression(expression: str, expected: set[str]) -> None:
    assert metrics_of(expression) == expected


def test_every_expression_is_understood_and_every_metric_in_it_exists(
    prometheus: Prometheus,
) -> None:
    known = prometheus.names() | ELSEWHERE
    asked = [*of_rules(), *of_dashboards()]
    assert len(asked) > len(RULES) * 10
    missing = {}
    for where, expression in asked:
        prometheus.api("query", query=expression)
        if unknown := metrics_of(expression) - known:
            missing[where] = unknown
    assert not missing


def test_labels_in_expressions_exist_with_their_values(
    prometheus: Prometheus,
) -> None:
    """Every label in an expression exists and has the value that is asked for."""
    names = prometheus.names()
    labels = {name: set(prometheus.api("labels", **{"match[]": name})) for name in names}
    wrong = []
    for where, expression in [*of_rules(), *of_dashboards()]:
        seen = metrics_of(expression) & names
        if not seen:
            continue
        known = set().union(*(labels[name] for name in seen))
        wrong += [f"{where}: by {each}" for each in grouped_by(expression) - known]
        for metric, label, value in matched(expression):
            if metric not in names - ELSEWHERE or value == ".*":
                continue
            values = prometheus.api(f"label/{label}/values", **{"match[]": metric})
            if value not in values and (metric, value) not in RARE:
                wrong.append(f'{where}: {metric}{{{label}="{value}"}}')
    assert not wrong


def test_every_metric_that_the_documents_name_exists(prometheus: Prometheus) -> None:
    known = {re.sub("_(bucket|count|sum)$", "", name) for name in prometheus.names() | ELSEWHERE}
    for page in ("runbook.md", "observability.md", "resilience.md", "troubleshooting.md"):
        text = (SHIPPED.parents[1] / "docs" / page).read_text()
        named = set(re.findall(r"\braglan_[a-z0-9_]+\b(?![*.<])", text)) - PACKAGES
        bare = {re.sub("_(bucket|count|sum)$", "", name) for name in named}
        assert not bare - known, f"{page}: {bare - known}"


def test_a_scrape_brings_exemplars_whose_traces_the_gateway_knows(prometheus: Prometheus) -> None:
    name = "raglan_gateway_request_duration_seconds_bucket"
    found = prometheus.api("query_exemplars", query=name, start="0", end="4102444800")
    traces = [e["labels"]["trace_id"] for series in found for e in series["exemplars"]]
    assert traces
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)


def test_what_happened_to_the_mesh_is_there_to_see(prometheus: Prometheus) -> None:
    def value(query: str) -> float:
        (result,) = prometheus.api("query", query=query)["result"]
        return float(result["value"][1])

    assert value('raglan_gateway_queries_total{outcome="complete"}') >= 41
    assert value('raglan_gateway_degraded_total{rung="fused_order"}') == 1
    assert value('raglan_gateway_queries_total{outcome="late"}') == 1
    assert value('raglan_gateway_queries_total{outcome="left"}') == 1
    # The tables and the index are looked at every 10 and 15 s.
    jobs, chunks = 'raglan_ingester_jobs{state="succeeded"}', "raglan_index_chunks"
    mesh_process.until(lambda: value(jobs) == 1, within_s=30, what="the job is seen")
    mesh_process.until(lambda: value(chunks) >= 8, within_s=30, what="the chunks are seen")
    assert value("count(raglan_backlog_seconds)") == 5
    assert value("count(raglan_build_info)") == 7
