"""Writes the dashboards that dashboards.yaml describes, for Grafana: `make dashboards`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
COLUMNS: Final = 24
HEIGHT: Final = {"stat": 4, "timeseries": 8, "state-timeline": 8}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
QUANTILES: Final = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99}

UNWELL: Final = "/(open|unreachable|not_serving|stalled|away|dead|lexical|passages|kept_answers)$/"
"""Names of states that want attention."""

Entry = Mapping[str, Any]
"""A dashboard, a row or a panel, as in the YAML."""


def document(dashboard: Entry) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    variables = dashboard.get("variables", {}).items()
    links = {"type": "dashboards", "tags": ["raglan"], "title": "Raglan"}
    return {
        "uid": f"raglan-{dashboard['name']}",
        "title": dashboard["title"],
        "tags": ["raglan"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "graphTooltip": 1,
        "links": [{**links, "asDropdown": True, "keepTime": True}],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_source(), *(_variable(*each) for each in variables)]},
        "panels": list(_panels(dashboard["rows"], dashboard.get("where", ""))),
    }


def queries(panel: Entry, where: str) -> Iterator[tuple[str, str]]:
    """(legend, expression) of each line of a panel.

    Args:
        panel: an entry of dashboards.yaml.
        where: matchers that hold for the whole dashboard.
    """
    if given := panel.get("expr"):
        for each in given if isinstance(given, list) else [panel]:
            yield each.get("legend", panel["title"]), each["expr"]
        return
    by = panel.get("by", "")
    matchers = ",".join(filter(None, (where, panel.get("where", ""))))
    labels = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)
    if counter := panel.get("rate"):
        yield labels or panel["title"], _rate(counter, by, matchers)
    for name, histogram in _histograms(panel):
        grouped = _rate(f"{histogram}_bucket", f"le, {by}" if by else "le", matchers)
        expression = f"histogram_quantile({QUANTILES[name]}, {grouped})"
        yield labels if name in panel else f"{labels} {name}".strip(), expression


def _histograms(panel: Entry) -> Iterator[tuple[str, str]]:
    for name in QUANTILES:
        if name in panel:
            yield name, panel[name]
        elif "percentiles" in panel and name != "p5":
            yield name, panel["percentiles"]


def _rate(metric: str, by: str, where: str) -> str:
    grouped = f"sum by ({by}) " if by else "sum"
    matchers = f"{{{where}}}" if where else ""
    return f"{grouped}(rate({metric}{matchers}[$__rate_interval]))"


# --- Grafana's JSON -------------------------------------------------------------------------------


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "enable": True,
        "datasource": SOURCE,
        "expr": 'ALERTS{alertname=~"Raglan.*",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "iconColor": "red",
    }


def _source() -> dict[str, Any]:
    named = {"name": "datasource", "label": "Prometheus"}
    return {**named, "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str) -> dict[str, Any]:
    several = name == "instance"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": "All", "value": "$__all"} if several else {},
    }


def _panels(rows: Sequence[Entry], where: str) -> Iterator[dict[str, Any]]:
    """Rows and panels, laid out from left to right and down."""
    number, top = 0, 0
    for row in rows:
        number += 1
        at = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": row["title"], "panels": [], "gridPos": at}
        top, left, tallest = top + 1, 0, 0
        for panel in row["panels"]:
            number += 1
            width, height = panel.get("wide", 8), HEIGHT[panel.get("kind", "timeseries")]
            if left + width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            at = {"h": height, "w": width, "x": left, "y": top}
            yield _panel(panel, where) | {"id": number, "gridPos": at}
            left, tallest = left + width, max(tallest, height)
        top += tallest


def _panel(panel: Entry, where: str) -> dict[str, Any]:
    kind = panel.get("kind", "timeseries")
    drawn: dict[str, Any] = {}
    if kind == "timeseries":
        drawn = {"fillOpacity": 10, "showPoints": "never", "lineWidth": 1}
    if panel.get("stacked"):
        drawn |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    defaults = {"unit": panel.get("unit", "short"), "min": 0, "custom": drawn}
    overrides: list[dict[str, Any]] = []
    if kind == "state-timeline":
        defaults |= _in("green")
        worse = {"id": "byRegexp", "options": UNWELL}
        red = [{"id": name, "value": value} for name, value in _in("red").items()]
        overrides = [{"matcher": worse, "properties": red}]
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel.get("says", ""),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": _options(kind, panel),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "exemplar": "histogram_quantile" in expression,
                "instant": kind == "stat",
            }
            for place, (legend, expression) in enumerate(queries(panel, where))
        ],
    }


def _in(color: str) -> dict[str, Any]:
    """1 in this colour, 0 in none."""
    shown = {"0": {"color": "transparent", "text": " "}, "1": {"color": color, "text": "is"}}
    return {"mappings": [{"type": "value", "options": shown}]}


def _options(kind: str, panel: Entry) -> dict[str, Any]:
    if kind == "stat":
        text = "value_and_name" if "legend" in panel else "value"
        last = {"calcs": ["lastNotNull"]}
        return {"reduceOptions": last, "textMode": text, "graphMode": "none"}
    if kind == "state-timeline":
        return {"mergeValues": True, "showValue": "never", "rowHeight": 0.8}
    table = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    return {"legend": table, "tooltip": {"mode": "multi", "sort": "desc"}}


def dashboards() -> list[dict[str, Any]]:
    """All of them."""
    described: list[Entry] = yaml.safe_load((HERE / "dashboards.yaml").read_text())
    return [document(each) for each in described]


def text(dashboard: Mapping[str, Any]) -> str:
    """A file."""
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def path(dashboard: Mapping[str, Any]) -> Path:
    """Where it goes."""
    return HERE / "dashboards" / f"{dashboard['uid'].removeprefix('raglan-')}.json"


if __name__ == "__main__":
    for each in dashboards():
        path(each).write_text(text(each))
