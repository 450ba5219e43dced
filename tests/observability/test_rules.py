"""Rules and configuration as promtool sees them, and what everyone on call may rely on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_process import SHIPPED

CASES: Final = sorted(Path(__file__).parent.glob("alerts*.yaml"))
RULES: Final = SHIPPED / "prometheus" / "alerts.yaml"
ROOT: Final = SHIPPED.parents[1]


def promtool(*arguments: str | Path) -> str:
    if not (binary := shutil.which("promtool")):
        pytest.fail("There is no promtool: apt-get install prometheus")
    done = subprocess.run(
        [binary, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def sections(path: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["prometheus.yaml", "compose.yaml"])
def test_promtool_finds_no_fault_in_configuration_and_rules(name: str) -> None:
    assert "SUCCESS" in promtool("check", "config", SHIPPED / "prometheus" / name)


def test_promtool_finds_no_fault_in_the_configuration_for_kubernetes(tmp_path: Path) -> None:
    config = yaml.safe_load((SHIPPED / "prometheus" / "kubernetes.yaml").read_text())
    for job in config["scrape_configs"]:
        # Debian builds Prometheus without Kubernetes; the rest of it is the same.
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    config["rule_files"] = [str(SHIPPED / "prometheus" / name) for name in config["rule_files"]]
    path = tmp_path / "kubernetes.yaml"
    path.write_text(yaml.safe_dump(config))
    assert "SUCCESS" in promtool("check", "config", path)


def test_alerts_fire_when_they_should_and_at_no_other_time() -> None:
    assert "SUCCESS" in promtool("test", "rules", *CASES)


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = "".join(path.read_text() for path in CASES)
    fired = set(re.findall(r'alertname="(\w+)"', cases))
    assert {alert["alert"] for alert in alerts()} == fired


def test_alerts_and_runbook_sections_match() -> None:
    """Every alert leads to a section of the runbook and no section is without one."""
    led_to = set()
    for alert in alerts():
        page, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert section in sections(ROOT / page), f"{alert['alert']}: no section {section}"
        led_to.add(section)
    told = sections(ROOT / "docs" / "runbook.md") - {"runbook", "before-anything-else"}
    assert told == led_to


def test_every_alert_says_how_urgent_it_is_and_what_has_happened() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}, alert["alert"]
        assert alert["annotations"]["summary"], alert["alert"]


def test_every_setting_that_the_runbook_names_exists() -> None:
    named = set(
        re.findall(r"\bRAGLAN_[A-Z0-9_]+\b(?!<)", (ROOT / "docs" / "runbook.md").read_text())
    )
    known = set(re.findall(r"`(RAGLAN_[A-Z0-9_]+)`", (ROOT / "docs/configuration.md").read_text()))
    assert {name for name in named if not name.endswith("_")} <= known | {"RAGLAN_URL"}
