"""Every package of the repository carries the repository's licence."""

from __future__ import annotations

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_every_package_names_the_licence() -> None:
    packages = [*REPOSITORY.glob("services/*/pyproject.toml"), REPOSITORY / "cli/pyproject.toml"]
    assert len(packages) > 7
    licences = {
        str(path.relative_to(REPOSITORY)): tomllib.loads(path.read_text())["project"].get("license")
        for path in packages
    }
    assert set(licences.values()) == {"Apache-2.0"}, licences
    assert (REPOSITORY / "LICENSE").read_text().lstrip().startswith("Apache License")
