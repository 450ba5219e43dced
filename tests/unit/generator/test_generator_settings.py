"""What the generator's settings refuse, and what they never show."""

from __future__ import annotations

import pytest
from raglan.settings import SettingsError, load
from raglan_generator.settings import GeneratorSettings


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_API_KEY", "sk-very-secret")
    settings = load(GeneratorSettings)
    assert "sk-very-secret" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "RAGLAN_GENERATOR_BASE_URL"),
        ({"BASE_URL": "localhost:8000"}, "RAGLAN_GENERATOR_BASE_URL"),
        ({"BASE_URL": "http://localhost:8000/v1"}, "RAGLAN_GENERATOR_MODEL"),
    ],
)
def test_the_openai_engine_names_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in ({"ENGINE": "openai", "API_KEY": "sk-very-secret"} | variables).items():
        monkeypatch.setenv(f"RAGLAN_GENERATOR_{name}", value)
    with pytest.raises(SettingsError, match=named) as caught:
        load(GeneratorSettings)
    assert "sk-very-secret" not in str(caught.value)


def test_the_default_engine_needs_nothing() -> None:
    assert GeneratorSettings().engine == "extractive"
