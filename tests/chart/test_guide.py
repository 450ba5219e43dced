"""The guide's examples are values that the chart takes."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from helm_chart import CHART, ROOT, render, workloads

GUIDE = ROOT / "docs" / "deploy" / "kubernetes.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_renders(number: int, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(EXAMPLES[number])
    objects = render("-f", str(values))
    for each in objects:
        kubernetes_validate.validate(each, "1.35", strict=True)
    expected = yaml.safe_load(EXAMPLES[number]).get("services", {})
    assert expected.keys() <= workloads(objects).keys()


def test_there_are_examples_of_every_kind_of_gpu() -> None:
    kinds = {
        gpu["kind"]
        for example in EXAMPLES
        for gpu in yaml.safe_load(example).get("gpus", {}).values()
    }
    small = yaml.safe_load((CHART / "values-small.yaml").read_text())["gpus"].values()
    assert kinds | {gpu["kind"] for gpu in small} == {"whole", "mig", "time-sliced", "dra"}


def test_named_files_and_values_exist() -> None:
    text = GUIDE.read_text()
    for name in set(re.findall(r"values-[a-z]+\.yaml", text)):
        assert (CHART / name).is_file(), name
    for name in set(re.findall(r"deploy/helm/[\w./-]+", text)):
        assert (ROOT / name.rstrip(".")).exists(), name
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in set(re.findall(r"`((?:autoscaling|networkPolicy|qdrant|redis|tls)\.\w+)`", text)):
        found = values
        for key in path.split("."):
            assert key in found, path
            found = found[key]
