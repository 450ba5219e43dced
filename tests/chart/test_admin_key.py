"""The first key of the gateway: drawn, given, or none; and who uses it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import service_settings
import yaml
from helm_chart import CHART, environment, helm, of_kind, render, workloads

OWN = '--set-json=services.gateway.secrets.admin_key={"existingSecret": "own", "key": "k"}'
OPEN = "--set=services.gateway.settings.anonymous=allow"
DRAWN = ("raglan-gateway-admin", "admin_key")


def key_of_the_gateway(objects: tuple[dict[str, Any], ...]) -> tuple[str, str] | None:
    """The Secret and the key in it that the gateway reads as its admin key."""
    for volume in workloads(objects)["gateway"]["spec"]["template"]["spec"]["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                if item["path"] == "admin_key":
                    return source["secret"]["name"], item["key"]
    return None


def key_of_the_test(objects: tuple[dict[str, Any], ...]) -> tuple[str, str] | None:
    """The same for the pod of `helm test`, which sends it."""
    pod = of_kind(objects, "Pod")["test"]["spec"]
    sent = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    for volume in pod["volumes"]:
        if volume["name"] == "secrets":
            (item,) = volume["secret"]["items"]
            (mount,) = (
                each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "secrets"
            )
            assert sent["RAGLAN_API_KEY_FILE"] == f"{mount['mountPath']}/{item['path']}"
            return volume["secret"]["secretName"], item["key"]
    assert "RAGLAN_API_KEY_FILE" not in sent
    return None


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), DRAWN), ((OWN,), ("own", "k")), ((OPEN,), None), ((OPEN, OWN), ("own", "k"))],
    ids=["default", "own", "open", "open with a key"],
)
def test_gateway_and_test_have_the_same_key(
    options: tuple[str, ...], expected: tuple[str, str] | None, tmp_path: Path
) -> None:
    objects = render(*options)
    assert key_of_the_gateway(objects) == expected
    assert key_of_the_test(objects) == expected
    assert of_kind(objects, "Secret").keys() == ({"gateway"} if expected == DRAWN else set())
    given = environment(workloads(objects)["gateway"])
    loaded = service_settings.accepted("gateway", given, folder=tmp_path)
    assert loaded.anonymous == ("allow" if OPEN in options else "loopback")  # type: ignore[attr-defined]
    assert bool(loaded.admin_key.get_secret_value()) == (expected is not None)  # type: ignore[attr-defined]


def test_the_drawn_key_is_one_that_the_gateway_takes(tmp_path: Path) -> None:
    secret = of_kind(render(), "Secret")["gateway"]
    assert secret["metadata"]["name"] == DRAWN[0]
    service_settings.accepted(
        "gateway", {"RAGLAN_GATEWAY_ADMIN_KEY": secret["stringData"][DRAWN[1]]}, folder=tmp_path
    )


def test_two_installations_draw_different_keys() -> None:
    drawn = set()
    for _ in range(2):
        objects = yaml.safe_load_all(helm("template", "raglan", ".").output)
        secret = of_kind([each for each in objects if each], "Secret")["gateway"]
        drawn.add(secret["stringData"][DRAWN[1]])
    assert len(drawn) == 2


def test_a_gateway_that_runs_elsewhere_draws_no_key() -> None:
    assert not of_kind(render("--set=services.gateway.enabled=false"), "Secret")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "get secret raglan-gateway-admin -o 'jsonpath={.data.admin_key}' | base64 -d"),
        ((OWN,), "get secret own -o 'jsonpath={.data.k}' | base64 -d"),
        ((OPEN,), "services.gateway.settings.anonymous is allow: until there is a key, whoever"),
    ],
)
def test_the_notes_say_how_to_get_in(options: tuple[str, ...], told: str) -> None:
    outcome = helm("install", "raglan", ".", "--dry-run=client", *options)
    assert outcome.status == 0, outcome.error
    _, _, notes = outcome.output.partition("NOTES:")
    assert told in notes
    assert "drawn" not in notes


def test_no_pod_but_the_gateway_and_the_test_reads_the_key() -> None:
    for name, workload in workloads(render()).items():
        mounted = "admin_key" in str(workload["spec"]["template"]["spec"]["volumes"])
        assert mounted == (name == "gateway"), name


def test_no_template_serves_everybody() -> None:
    for file in (CHART / "templates").rglob("*"):
        if file.is_file():
            assert not re.search(r"^ANONYMOUS", file.read_text(), re.MULTILINE), file.name
