"""What RAGLAN_FAULTS may say, and what is said when it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from raglan import fault_plan
from raglan.settings import GrpcSettings, SettingsError, load


def test_a_replica_s_own_fault_goes_before_its_service_s() -> None:
    plan = fault_plan.parse('{"embedder": {"stall": true}, "embedder@a:1": {"latency_ms": 5}}')
    assert plan.fault("embedder", "a:1").latency_ms == 5  # type: ignore[union-attr]
    assert plan.fault("embedder", "b:1").stall  # type: ignore[union-attr]
    assert plan.fault("reranker", "a:1") is None


def test_the_same_seed_hits_the_same_calls_of_an_endpoint() -> None:
    first, again = (fault_plan.parse('{"embedder": {"stall": true}, "seed": 7}') for _ in "ab")
    other = fault_plan.parse('{"embedder": {"stall": true}, "seed": 8}')
    drawn = [
        [plan.chance("embedder", "a:1").random() for _ in range(5)]
        for plan in (first, again, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_seed_the_plan_has_one_to_tell() -> None:
    seeds = {fault_plan.parse("{}").seed for _ in range(4)}
    assert len(seeds) > 1


def test_a_range_of_latencies_stays_in_its_bounds() -> None:
    plan = fault_plan.parse('{"embedder": {"latency_ms": {"min": 10, "max": 20}}}')
    fault, chance = plan.faults["embedder"], plan.chance("embedder", "a:1")
    drawn = [fault.delay_s(chance) for _ in range(200)]
    assert 0.010 <= min(drawn) < 0.012
    assert 0.018 < max(drawn) <= 0.020


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "must be an object"),
        ('{"embedder": {}}', "embedder: name at least one of"),
        ('{"embedder": {"stall": true, "error": "UNAVAILABLE"}}', "a stalled call meets neither"),
        ('{"embedder": {"error": "BROKEN"}}', "embedder.error: .*got 'BROKEN'"),
        ('{"embedder": {"latency_ms": -1}}', r"embedder.latency_ms: .*got -1"),
        ('{"embedder": {"latency_ms": {"min": 2, "max": 1}}}', "min is 2, more than max, 1"),
        ('{"embedder": {"stall": true, "percent": 101}}', "embedder.percent: .*100"),
        ('{"embedder": {"late_ms": 1}}', "embedder.late_ms"),
        ('{"embedder": 3}', "embedder: .*got 3"),
        ('{"seed": "x"}', "seed: .*got 'x'"),
        ('{"embeder": {"stall": true}}', "there is no embeder; there are .*embedder"),
        ("@/nowhere/faults.json", "/nowhere/faults.json cannot be read"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLAN_FAULTS", text)
    with pytest.raises(SettingsError, match=f"^RAGLAN_FAULTS.*{said}"):
        load(GrpcSettings)


def test_a_good_plan_lets_a_service_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"embedder@127.0.0.1:7101": {"cut_after": 3}, "seed": 1}')
    monkeypatch.setenv("RAGLAN_FAULTS", f"@{path}")
    assert load(GrpcSettings) == GrpcSettings()
    plan = fault_plan.parse(fault_plan.read(f"@{path}"))
    assert plan.fault("embedder", "127.0.0.1:7101") == fault_plan.Fault(cut_after=3)
    assert plan.fault("embedder", "127.0.0.1:7102") is None
