"""The dashboards as files: up to date, well-formed, without averages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_process import SHIPPED

sys.path.append(str(SHIPPED / "grafana"))

import dashboards

ALL = [dashboards.path(each) for each in dashboards.dashboards()]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in ALL:
        for panel in json.loads(path.read_text())["panels"]:
            yield path.stem, panel


def test_the_files_are_those_that_make_dashboards_writes() -> None:
    stale = [path for path, each in zip(ALL, dashboards.dashboards(), strict=True)
             if path.read_text() != dashboards.text(each)]  # fmt: skip
    assert not stale, "run make dashboards"
    assert sorted(ALL) == sorted(ALL[0].parent.glob("*.json"))


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    taken: dict[tuple[str, int, int], str] = {}
    ids = [(name, panel["id"]) for name, panel in panels()]
    assert len(ids) == len(set(ids))
    for name, panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (name, x, y) not in taken, f"{panel['title']} on {taken[name, x, y]}"
                taken[name, x, y] = panel["title"]


def test_durations_are_percentiles_never_averages() -> None:
    expressions = [t["expr"] for _, panel in panels() for t in panel.get("targets", ())]
    assert not [each for each in expressions if re.search(r"_sum\b|\bavg(_over_time)?\b", each)]
    assert sum("histogram_quantile" in each for each in expressions) > 20


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mesh", "raglan_attempts_total"),
        ("mesh", "raglan_hedges_won_total"),
        ("mesh", "raglan_breaker_state"),
        ("mesh", "raglan_encoder_queue_seconds_bucket"),
        ("mesh", "raglan_gateway_remaining_deadline_seconds_bucket"),
        ("mesh", "raglan_gateway_rung"),
        ("generation", "raglan_generator_per_token_seconds_bucket"),
        ("ingestion", "raglan_ingester_oldest_job_seconds"),
        ("gpus", "DCGM_FI_DEV_FB_USED"),
        ("service", "raglan_rpc_server_duration_seconds_bucket"),
    ],
)
def test_what_other_dashboards_leave_out_is_shown(name: str, shown: str) -> None:
    expressions = [t["expr"] for of, panel in panels() if of == name
                   for t in panel.get("targets", ())]  # fmt: skip
    assert [each for each in expressions if shown in each]


def test_percentiles_lead_to_their_exemplars() -> None:
    for _, panel in panels():
        for target in panel.get("targets", ()):
            assert target["exemplar"] == ("histogram_quantile" in target["expr"]), panel["title"]
