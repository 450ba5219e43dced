"""Every object of every variant is what Kubernetes and the operators take."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_chart import VARIANTS, component, helm, pod_template, pods, variant

KUBERNETES = ("1.31", "1.35")
SINCE_1_34 = {"ResourceClaim", "ResourceClaimTemplate"}
DEFINED_BY_OPERATORS = ("keda.sh/", "monitoring.coreos.com/")


@pytest.mark.parametrize("name", VARIANTS)
def test_lint_has_no_remark(name: str) -> None:
    outcome = helm("lint", "--strict", ".", *VARIANTS[name])
    assert outcome.status == 0, outcome.output + outcome.error
    assert "[WARNING]" not in outcome.output + outcome.error


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_fit_kubernetes(name: str, version: str) -> None:
    objects = [each for each in variant(name) if not _is_foreign(each)]
    assert len(objects) > 20
    for each in objects:
        if each["kind"] in SINCE_1_34 and version == "1.31":
            continue
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_objects_of_operators_fit_their_definitions(name: str) -> None:
    expected = {
        "autoscale": {"ScaledObject", "PodMonitor"},
        "hpa": {"PodMonitor"},
        "observability": {"PodMonitor", "PrometheusRule"},
        "service-monitor": {"ServiceMonitor", "PrometheusRule"},
        "all": {"ScaledObject", "PodMonitor", "PrometheusRule"},
    }
    foreign = [each for each in variant(name) if _is_foreign(each)]
    assert {each["kind"] for each in foreign} == expected.get(name, set())
    for each in foreign:
        schema = definitions()[each["apiVersion"], each["kind"]]
        jsonschema.Draft7Validator(schema).validate(each)


def test_an_unknown_field_is_found() -> None:
    """The checks above can fail."""
    broken = next(each for each in variant("default") if each["kind"] == "Deployment")
    broken = yaml.safe_load(yaml.safe_dump(broken))
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.35", strict=True)
    scaled = next(each for each in variant("autoscale") if each["kind"] == "ScaledObject")
    schema = definitions()[scaled["apiVersion"], "ScaledObject"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**scaled, "spec": {"triggers": []}})


@pytest.mark.parametrize("name", VARIANTS)
def test_names_are_unique_and_short(name: str) -> None:
    seen = [(each["kind"], each["metadata"]["name"]) for each in variant(name)]
    assert len(set(seen)) == len(seen)
    assert all(len(own) <= 63 for _, own in seen)
    assert {each["metadata"].get("namespace") for each in variant(name)} == {"rag"}


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_restricted(name: str) -> None:
    """The policy "restricted" of Kubernetes' pod security standards, and a read-only root."""
    for where, pod in pods(variant(name)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
        # OpenShift chooses the user.
        assert name == "openshift" or context["runAsUser"] > 0, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not pod["automountServiceAccountToken"], where
        assert not pod.get("hostNetwork"), where
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            own = each["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert each["resources"]["limits"]["memory"], where
        for volume in pod["volumes"]:
            assert not {"hostPath", "nfs", "iscsi"} & set(volume), where


@pytest.mark.parametrize("name", VARIANTS)
def test_selectors_find_their_pods(name: str) -> None:
    templates = {
        component(each): template["metadata"]["labels"]
        for each in variant(name)
        if (template := pod_template(each))
    }
    for each in variant(name):
        match each["kind"]:
            case "Service":
                selector = each["spec"]["selector"]
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
                selector = each["spec"]["selector"]["matchLabels"]
            case "NetworkPolicy":
                selector = each["spec"]["podSelector"]["matchLabels"]
            case _:
                continue
        matched = {own for own, labels in templates.items() if selector.items() <= labels.items()}
        assert matched == {component(each)}, each["metadata"]["name"]


def _is_foreign(thing: dict[str, Any]) -> bool:
    found: bool = thing["apiVersion"].startswith(DEFINED_BY_OPERATORS)
    return found


@cache
def definitions() -> dict[tuple[str, str], dict[str, Any]]:
    """API version and kind -> schema, of the operators' definitions; unknown fields are refused."""
    found = {}
    for path in sorted((Path(os.environ["EVAL_DATA_DIR"]) / "schemas").glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown fields refused, as the API server prunes them."""
    result = {**schema}
    if properties := schema.get("properties"):
        result["properties"] = {name: _closed(each) for name, each in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    elif isinstance(more := schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _closed(more)
    if items := schema.get("items"):
        result["items"] = _closed(items)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return result
