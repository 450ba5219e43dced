"""The chart as an archive, and its objects in other hands: what registries and Kustomize get."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from helm_chart import KUBECTL, VARIANTS, helm, variant


def test_the_archive_renders_as_the_folder_does(tmp_path: Path) -> None:
    """Rules and dashboards are links in the folder, and files in the archive."""
    packed = helm("package", ".", "--destination", str(tmp_path))
    assert packed.status == 0, packed.error
    (archive,) = tmp_path.glob("raglan-*.tgz")
    with tarfile.open(archive) as members:
        files = {each.name for each in members if not each.issym()}
    assert "raglan/observability/prometheus/alerts.yaml" in files
    assert not any(name.endswith(".py") or "collector" in name for name in files)
    rendered = helm(
        "template", "raglan", str(archive), "--namespace", "rag", *VARIANTS["observability"]
    )
    assert rendered.status == 0, rendered.error
    objects = [each for each in yaml.safe_load_all(rendered.output) if each]
    # A key is drawn for each.
    assert _without_secrets(objects) == _without_secrets(variant("observability"))


def test_kustomize_reads_and_changes_every_object(tmp_path: Path) -> None:
    """A post-renderer of operators who patch what a chart has no value for."""
    objects = list(variant("all"))
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(objects))
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["rendered.yaml"], "commonAnnotations": {"owner": "search"}})
    )
    built = subprocess.run(
        [str(KUBECTL), "kustomize", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    changed = [each for each in yaml.safe_load_all(built.stdout) if each]
    assert len(changed) == len(objects)
    assert all(each["metadata"]["annotations"]["owner"] == "search" for each in changed)


def _without_secrets(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] != "Secret"]
