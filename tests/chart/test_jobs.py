"""Jobs, the backup's schedule and the test of the chart."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from helm_chart import POSTGRES, container, of_kind, pod_template, render

POD = {
    "nodeSelector": {"disk": "fast"},
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"key": "rag", "operator": "Exists"}],
    "priorityClassName": "rag-high",
    "runtimeClassName": "gvisor",
    "serviceAccountName": "rag",
}

JOBS = (
    *("-f", "values-small.yaml"),
    *POSTGRES,
    "--set=backup.enabled=true",
    *(
        f"--set-json=defaults.{key}={json.dumps(value)}"
        for key, value in {
            **POD,
            "podLabels": {"owner": "search"},
            "podAnnotations": {"sidecar.istio.io/inject": "false"},
            "extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
            "extraEnvFrom": [{"configMapRef": {"name": "proxy"}}],
            "podSpec": {"hostUsers": False},
        }.items()
    ),
)


def test_jobs_and_the_test_are_given_what_all_pods_are() -> None:
    found = of_kind(render(*JOBS), "Job", "CronJob", "Pod")
    assert found.keys() == {"models", "migrate", "backup", "test"}
    for name, each in found.items():
        template = pod_template(each) or each
        pod = template["spec"]
        assert {key: pod[key] for key in POD} == POD, name
        assert pod["hostUsers"] is False, name
        assert template["metadata"]["labels"]["owner"] == "search", name
        assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false", name
        own = pod["containers"][0]
        assert "/ca" in {each["mountPath"] for each in own["volumeMounts"]}, name
        assert {each["name"] for each in own["volumeMounts"]} <= {
            each["name"] for each in pod["volumes"]
        }, name
        assert own["envFrom"] == [{"configMapRef": {"name": "proxy"}}], name


def test_the_migration_has_the_ingester_s_way_to_the_database() -> None:
    """Its certificates, account and proxies are those of the service."""
    own = {
        "serviceAccountName": "database",
        "extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        "extraInitContainers": [{"name": "proxy", "image": "proxy", "restartPolicy": "Always"}],
    }
    options = [
        f"--set-json=services.ingester.{key}={json.dumps(value)}" for key, value in own.items()
    ]
    pod = of_kind(render(*POSTGRES, *options), "Job")["migrate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "database"
    assert pod["initContainers"] == own["extraInitContainers"]
    assert own["extraVolumes"][0] in pod["volumes"]
    assert own["extraVolumeMounts"][0] in pod["containers"][0]["volumeMounts"]


def test_ingesters_may_migrate_by_themselves() -> None:
    objects = render(*POSTGRES, "--set=postgresql.migrationJob=false")
    assert "migrate" not in of_kind(objects, "Job", "NetworkPolicy")


def test_the_download_is_given_a_proxy() -> None:
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    objects = render(
        "-f", "values-small.yaml", f"--set-json=modelCache.extraEnv={json.dumps([proxy])}"
    )
    assert proxy in container(of_kind(objects, "Job")["models"])["env"]


def test_the_newest_whole_backups_are_kept(tmp_path: Path) -> None:
    """The script of the CronJob, with a `raglan` that writes a backup's manifest."""
    job = of_kind(render("--set=backup.enabled=true,backup.keep=2"), "CronJob")["backup"]
    ((script,), program) = (
        container(job["spec"]["jobTemplate"])[key] for key in ("args", "command")
    )
    tool = tmp_path / "bin" / "raglan"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nmkdir "$2" && touch "$2/manifest.json"\n')
    tool.chmod(0o755)
    folder = tmp_path / "backups"
    folder.mkdir()
    for number, (name, is_whole) in enumerate(
        (("r-backup-1", True), ("r-backup-2", True), ("r-backup-3", False), ("other", False))
    ):
        each = folder / name
        each.mkdir()
        if is_whole:
            (each / "manifest.json").touch()
        for path in (*each.iterdir(), each):
            os.utime(path, (1_000_000 + number, 1_000_000 + number))
    (folder / "r-backup-5").mkdir()
    subprocess.run(
        [*program, script.replace("/backups", str(folder))],
        env={"PATH": f"{tool.parent}:{os.environ['PATH']}", "BACKUP": "r-backup-4"},
        check=True,
        timeout=60,
    )
    assert {each.name for each in folder.iterdir()} == {
        "other", "r-backup-2", "r-backup-4", "r-backup-5",
    }  # fmt: skip
