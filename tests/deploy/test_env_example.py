"""`.env.example` and init.sh: what a user starts from."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from compose_files import BASE, FOLDER, MIXES, load
from raglan.settings import is_secret, variables_of
from service_settings import SERVICES, accepted, settings_of

EXAMPLE: Final = FOLDER / ".env.example"
LINES: Final = re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
DEFAULTS: Final = dict(LINES)


def test_every_variable_is_commented_and_there_once() -> None:
    assert len(LINES) == len(DEFAULTS) > 150
    for group in re.split(r"\n\n+", EXAMPLE.read_text()):
        first, *_ = group.splitlines()
        assert first.startswith("# "), group


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_there_or_said_to_be_set_by_compose(service: str) -> None:
    settled = re.findall(
        r"^# Set by compose.yaml: (.*(?:\n# .*)*)$", EXAMPLE.read_text(), re.MULTILINE
    )
    listed = {name for each in settled for name in re.findall(r"RAGLAN_\w+", each)}
    for variable in variables_of(settings_of(service)):
        assert {variable, f"{variable}_FILE"} & DEFAULTS.keys() or variable in listed, variable


@pytest.mark.parametrize("service", SERVICES)
def test_a_secret_is_a_file_or_has_no_secret_in_it(service: str) -> None:
    settings = settings_of(service)
    for variable, field in variables_of(settings).items():
        if is_secret(settings.model_fields[field]) and variable in DEFAULTS:
            assert urlsplit(DEFAULTS[variable]).password is None


@pytest.mark.parametrize("service", SERVICES)
def test_every_default_is_accepted(service: str, tmp_path: Path) -> None:
    """Whoever removes every # has changed nothing."""
    project = load(BASE, environ=DEFAULTS)
    environment = DEFAULTS | {
        name: str(value) for name, value in project["services"][service]["environment"].items()
    }
    prefixes = ("RAGLAN_", "HF_", "OTEL_")
    environment = {name: value for name, value in environment.items() if name.startswith(prefixes)}
    shipped = load(BASE)["services"][service]["environment"]
    as_shipped = {name: str(value) for name, value in shipped.items()}
    secrets = {name: value for name, value in environment.items() if name.endswith("_FILE")}
    assert accepted(service, environment, folder=tmp_path) == accepted(
        service, as_shipped | secrets, folder=tmp_path
    )


def test_every_variable_of_the_compose_files_is_there() -> None:
    for path in FOLDER.glob("compose*.yaml"):
        for name in re.findall(r"\$\{(\w+)", path.read_text()):
            assert name in DEFAULTS, f"{path.name}: {name}"


def test_a_variable_of_compose_alone_is_none_of_a_service() -> None:
    """Every container gets all of .env, and a service refuses unknown names with RAGLAN_."""
    read = {variable for service in SERVICES for variable in variables_of(settings_of(service))}
    unread = {name for name in DEFAULTS if name.startswith("RAGLAN_")} - read
    assert {name for name in unread if not name.endswith("_FILE")} == {
        "RAGLAN_FAULTS", "RAGLAN_TRACE_CONTENT", "RAGLAN_TRACE_SPANS",
    }  # fmt: skip


def test_init_makes_what_is_missing_and_leaves_the_rest(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "init.sh", tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    subprocess.run([tmp_path / "init.sh"], check=True, timeout=60, capture_output=True)
    assert (tmp_path / ".env").read_text() == EXAMPLE.read_text()
    secrets = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    named = {name for names in MIXES for name in load(*names)["secrets"]}
    assert set(secrets) == named
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    # Users of containers, who are others on this host, read them through the mount.
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.values()} == {0o644}
    made = {name: path.read_text() for name, path in secrets.items()}
    random = {name: text for name, text in made.items() if text}
    assert {len(text) for text in random.values()} == {48}
    assert len(set(random.values())) == len(random) == 5
    secrets["generator_api_key"].write_text("mine")
    subprocess.run([tmp_path / "init.sh"], check=True, timeout=60, capture_output=True)
    after = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert after == made | {"generator_api_key": "mine"}
