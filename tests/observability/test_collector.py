"""The tail-sampling collector's configuration, as far as it can be checked without a collector."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prometheus_process import SHIPPED
from raglan.telemetry import semconv


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(
        (SHIPPED / "collector" / "tail-sampling.yaml").read_text()
    )
    return loaded


def test_what_is_kept_is_asked_for_by_the_names_that_spans_carry(config: dict[str, Any]) -> None:
    policies = config["processors"]["tail_sampling"]["policies"]
    asked = {each["boolean_attribute"]["key"] for each in policies if "boolean_attribute" in each}
    assert asked == {semconv.DEGRADED, semconv.HEDGED, semconv.RETRIED}


def test_errors_slow_ones_and_five_of_a_hundred_are_kept(config: dict[str, Any]) -> None:
    policies = {each["type"]: each for each in config["processors"]["tail_sampling"]["policies"]}
    assert policies["status_code"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["latency"]["latency"]["threshold_ms"] >= 1000
    assert policies["probabilistic"]["probabilistic"] == {"sampling_percentage": 5}


def test_every_part_of_the_pipeline_is_configured_and_used(config: dict[str, Any]) -> None:
    (pipeline,) = config["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(config[kind])
    # Memory is limited before anything is kept, and what was judged is batched, not the reverse.
    assert pipeline["processors"] == ["memory_limiter", "tail_sampling", "batch"]


def test_it_listens_to_this_machine_alone_unless_it_is_told_otherwise(
    config: dict[str, Any],
) -> None:
    for protocol in config["receivers"]["otlp"]["protocols"].values():
        assert protocol["endpoint"].startswith("${env:LISTEN:-127.0.0.1}:")
