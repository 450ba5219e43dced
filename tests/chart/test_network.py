"""Network policies: each call that the code makes is allowed, and no other between pods."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import service_settings
from helm_chart import (
    POSTGRES,
    QDRANT,
    SEVERAL,
    component,
    environment,
    of_kind,
    ports,
    render,
    variant,
    workloads,
)
from raglan.settings import SERVICES

BACKENDS = {
    ("gateway", "redis"),
    ("gateway", "postgresql"),
    ("ingester", "postgresql"),
    ("retriever", "qdrant"),
}


@pytest.mark.parametrize("name", ["default", "small", "bundled", "all"])
def test_pods_reach_what_the_code_calls_and_nothing_else(name: str) -> None:
    objects = variant(name)
    running = workloads(objects)
    expected = {
        (service, callee, service_settings.port(callee))
        for service in SERVICES
        for callee in service_settings.called_services(service).values()
    }
    for caller, server in BACKENDS:
        if server in running:
            expected.add((caller, server, next(iter(ports(running[server]).values()))))
    policies = of_kind(objects, "NetworkPolicy")
    allowed = {
        (source, target, port)
        for source, target in itertools.permutations(running, 2)
        for port in ports(running[target]).values()
        if _sends(policies[source], running[target], port)
        and _takes(policies[target], running[source], port)
    }
    # The gateway takes calls of everybody, but no service has a way to it.
    assert allowed == expected


def test_model_services_reach_nothing_but_names() -> None:
    policies = of_kind(variant("small"), "NetworkPolicy")
    for service in ("embedder", "reranker", "generator"):
        (rule,) = policies[service]["spec"]["egress"]
        assert {each["port"] for each in rule["ports"]} == {53}, service


def test_every_workload_has_a_policy_both_ways() -> None:
    for name in ("default", "bundled", "all"):
        objects = variant(name)
        policies = of_kind(objects, "NetworkPolicy")
        assert workloads(objects).keys() <= policies.keys()
        for each in policies.values():
            assert set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_the_download_reaches_the_hub_alone() -> None:
    policy = of_kind(variant("small"), "NetworkPolicy")["models"]
    assert not policy["spec"].get("ingress")
    assert [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]] == [
        *(53, 53),
        443,
    ]


def test_the_migration_reaches_the_database_alone() -> None:
    outside = of_kind(variant("several"), "NetworkPolicy")["migrate"]
    assert outside["spec"]["egress"][-1] == {"ports": [{"port": 5433, "protocol": "TCP"}]}
    policies = of_kind(variant("bundled"), "NetworkPolicy")
    job = of_kind(variant("bundled"), "Job")["migrate"]
    database = workloads(variant("bundled"))["postgresql"]
    assert _sends(policies["migrate"], database, 5432)
    assert _takes(policies["postgresql"], job, 5432)


def test_the_download_reaches_the_mirror_that_is_named() -> None:
    rule = {"ports": [{"port": 3128, "protocol": "TCP"}]}
    objects = render(
        *("-f", "values-small.yaml", "--set=modelCache.endpoint=http://mirror:8081"),
        f"--set-json=modelCache.networkPolicy.egress={json.dumps([rule])}",
    )
    egress = of_kind(objects, "NetworkPolicy")["models"]["spec"]["egress"]
    assert egress[1:] == [{"ports": [{"port": 8081, "protocol": "TCP"}]}, rule]


def test_the_backup_reaches_the_ingester_alone() -> None:
    objects = variant("backup")
    policies = of_kind(objects, "NetworkPolicy")
    ingester = workloads(objects)["ingester"]
    job = of_kind(objects, "CronJob")["backup"]["spec"]["jobTemplate"]
    assert len(policies["backup"]["spec"]["egress"]) == 2
    assert _sends(policies["backup"], ingester, 7105)
    assert _takes(policies["ingester"], job, 7105)
    default = of_kind(variant("default"), "NetworkPolicy")
    assert not _takes(default["ingester"], job, 7105)


def test_names_are_asked_where_the_cluster_says() -> None:
    objects = render("--set-json=networkPolicy.dnsPorts=[5353]")
    for policy in of_kind(objects, "NetworkPolicy").values():
        asked = policy["spec"]["egress"][0]["ports"]
        assert asked == [{"port": 5353, "protocol": each} for each in ("UDP", "TCP")]


def test_servers_outside_are_reached_by_their_ports() -> None:
    objects = render(
        *SEVERAL,
        "--set=services.generator.settings.engine=openai"
        r",services.generator.settings.base_url=https://llm.example/v1"
        ",services.generator.settings.model=llama"
        ",telemetry.collector=http://collector.tracing:4318",
    )
    assert _outside(objects) == {
        **{service: {4318} for service in SERVICES},
        "gateway": {5433, 6379, 4318},
        "retriever": {6333, 4318},
        "ingester": {5433, 4318},
        "generator": {443, 4318},
    }


def test_operators_say_where_outside_is_and_who_calls() -> None:
    block = '[{"ipBlock": {"cidr": "10.1.0.0/16"}}]'
    peers = '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}]'
    objects = render(
        *QDRANT,
        *POSTGRES,
        f"--set-json=networkPolicy.externalTo={block}",
        f"--set-json=networkPolicy.gatewayFrom={peers}",
        f'--set-json=services.tracer.networkPolicy.ingress=[{{"from": {peers}}}]',
    )
    policies = of_kind(objects, "NetworkPolicy")
    assert policies["retriever"]["spec"]["egress"][-1]["to"] == [
        {"ipBlock": {"cidr": "10.1.0.0/16"}}
    ]
    (rule,) = policies["gateway"]["spec"]["ingress"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}} in rule[
        "from"
    ]
    assert "from" in policies["tracer"]["spec"]["ingress"][-1]


def test_spans_of_others_are_received_from_whom_the_operator_names() -> None:
    tracer = workloads(variant("default"))["tracer"]
    assert environment(tracer)["RAGLAN_TRACER_OTLP_HOST"] == "127.0.0.1"
    assert "otlp" not in ports(tracer)
    peers = [{"podSelector": {"matchLabels": {"app": "vllm"}}}]
    objects = render(f"--set-json=services.tracer.otlpFrom={json.dumps(peers)}")
    assert environment(workloads(objects)["tracer"])["RAGLAN_TRACER_OTLP_HOST"] == "0.0.0.0"
    rule = of_kind(objects, "NetworkPolicy")["tracer"]["spec"]["ingress"][-1]
    assert rule == {"from": peers, "ports": [{"port": 4319, "protocol": "TCP"}]}


def test_policies_can_be_left_to_others() -> None:
    assert not of_kind(render("--set", "networkPolicy.enabled=false"), "NetworkPolicy")


def _outside(objects: Any) -> dict[str, set[int]]:
    """Service -> ports that it may reach anywhere."""
    return {
        service: {
            port["port"]
            for rule in policy["spec"]["egress"]
            if "to" not in rule
            for port in rule["ports"]
        }
        for service, policy in of_kind(objects, "NetworkPolicy").items()
        if service in SERVICES
    }


def _sends(policy: dict[str, Any], target: dict[str, Any], port: int) -> bool:
    return any(_rule(each, "to", target, port) for each in policy["spec"]["egress"])


def _takes(policy: dict[str, Any], source: dict[str, Any], port: int) -> bool:
    return any(_rule(each, "from", source, port) for each in policy["spec"]["ingress"])


def _rule(rule: dict[str, Any], key: str, other: dict[str, Any], port: int) -> bool:
    """Whether a rule covers the pods of `other`, in the same namespace."""
    if "ports" in rule and port not in {each["port"] for each in rule["ports"]}:
        return False
    if key not in rule:
        return True
    labels = other["spec"]["template"]["metadata"]["labels"]
    return any(
        "podSelector" in peer
        and "namespaceSelector" not in peer
        and peer["podSelector"]["matchLabels"].items() <= labels.items()
        for peer in rule[key]
    )


def test_the_evaluation_sees_a_missing_rule() -> None:
    policies = of_kind(variant("default"), "NetworkPolicy")
    running = workloads(variant("default"))
    assert _takes(policies["embedder"], running["gateway"], 7101)
    assert not _takes(policies["embedder"], running["generator"], 7101)
    assert component(policies["embedder"]) == "embedder"
