"""Thresholds that the chart ships are those that the simulation found best."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from helm_chart import of_kind, variant

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from autoscaling import SHIPPED, Policy


def limits(direction: dict[str, Any]) -> list[tuple[str, int, float]]:
    return [(each["type"], each["value"], each["periodSeconds"]) for each in direction["policies"]]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_thresholds_are_those_simulated(name: str) -> None:
    policy: Policy = SHIPPED[name]
    scaled = of_kind(variant("autoscale"), "ScaledObject")[name]["spec"]
    (trigger,) = scaled["triggers"]
    assert float(trigger["metadata"]["threshold"]) == policy.target
    assert scaled["minReplicaCount"] == policy.lowest
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for direction, wanted in (("scaleUp", policy.behavior.up), ("scaleDown", policy.behavior.down)):
        assert limits(behavior[direction]) == [
            (limit.kind, limit.value, limit.period_s) for limit in wanted
        ]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == policy.behavior.up_window_s
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == policy.behavior.down_window_s
