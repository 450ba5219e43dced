"""Generated pages are what the code says now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def generated(tmp_path: Path, script: str = "configuration.py") -> str:
    command = [sys.executable, str(REPOSITORY / "docs" / script)]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_configuration_page_is_up_to_date(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert generated(tmp_path) == page, "run: make docs"


@pytest.mark.parametrize("where", ["/root", "/home", "site-packages"])
def test_the_configuration_page_names_no_path_of_a_machine(where: str) -> None:
    assert where not in (REPOSITORY / "docs" / "configuration.md").read_text()


def test_every_setting_has_its_sentence(tmp_path: Path) -> None:
    rows = [line for line in generated(tmp_path).splitlines() if line.startswith("| `RAGLAN_")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_rest_reference_is_up_to_date(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "rest.md").read_text()
    assert generated(tmp_path, "rest.py") == page, "run: make docs"


def test_the_example_of_compose_variables_is_up_to_date(tmp_path: Path) -> None:
    example = (REPOSITORY / "deploy" / "compose" / ".env.example").read_text()
    assert generated(tmp_path, "env_example.py") == example, "run: make docs"
