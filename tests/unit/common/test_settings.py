from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pydantic import Field, PositiveInt, SecretStr
from raglan import redaction
from raglan.settings import SERVICES, GrpcSettings, SettingsError, default_data_dir, is_secret, load
from raglan_gateway.settings import GatewaySettings
from raglan_tracer.settings import TracerSettings


class EmbedderLike(GrpcSettings, env_prefix="RAGLAN_EMBEDDER_"):
    max_texts: PositiveInt = 256
    """Texts."""


def test_a_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGLAN_EMBEDDER_MAX_TEXT", "3")
    with pytest.raises(
        SettingsError, match="RAGLAN_EMBEDDER_MAX_TEXT .*mean RAGLAN_EMBEDDER_MAX_TEXTS"
    ):
        load(EmbedderLike)


def test_a_variable_of_no_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_EMBEDER_MAX_TEXTS", "3")
    with pytest.raises(SettingsError, match="RAGLAN_EMBEDER_MAX_TEXTS"):
        load(EmbedderLike)


def test_variables_of_other_services_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_RERANKER_WHATEVER", "3")
    monkeypatch.setenv("RAGLAN_EMBEDDER_MAX_TEXTS", "3")
    assert load(EmbedderLike).max_texts == 3


def test_a_bad_value_names_variable_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_EMBEDDER_MAX_TEXTS", "-1")
    with pytest.raises(SettingsError, match=r"RAGLAN_EMBEDDER_MAX_TEXTS: .*'-1'"):
        load(EmbedderLike)


def test_settings_listen_on_loopback_and_hide_reflection_by_default() -> None:
    settings = load(EmbedderLike)
    assert (settings.host, settings.reflection) == ("127.0.0.1", False)


class GeneratorLike(GrpcSettings, env_prefix="RAGLAN_GENERATOR_"):
    api_key: SecretStr = SecretStr("")
    """Key."""
    other_key: SecretStr | None = Field(default=None, max_length=4)
    """Another."""


def test_a_secret_may_be_given_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("API_KEY", "OTHER_KEY"):
        (tmp_path / variable).write_text("s1\n")
        monkeypatch.setenv(f"RAGLAN_GENERATOR_{variable}_FILE", str(tmp_path / variable))
    loaded = load(GeneratorLike)
    assert loaded.api_key.get_secret_value() == "s1"
    assert loaded.other_key is not None
    assert loaded.other_key.get_secret_value() == "s1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "/secret cannot be read: No such file or directory."),
        (b"", "/secret is empty; write the secret into it."),
        (b"\n", "/secret is empty"),
        (b"\xff\xfe", "/secret is no text in UTF-8."),
        (b"x" * 70_000, "/secret holds more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("RAGLAN_GENERATOR_API_KEY_FILE", str(path))
    with pytest.raises(SettingsError, match=f"RAGLAN_GENERATOR_API_KEY_FILE: .*{sentence}"):
        load(GeneratorLike)


def test_a_secret_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_API_KEY", "a")
    monkeypatch.setenv("RAGLAN_GENERATOR_API_KEY_FILE", "/b")
    with pytest.raises(SettingsError, match="API_KEY and .*API_KEY_FILE are both set; keep one"):
        load(GeneratorLike)


def test_a_secret_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_OTHER_KEY", "correct-horse")
    with pytest.raises(SettingsError) as refused:
        load(GeneratorLike)
    assert "RAGLAN_GENERATOR_OTHER_KEY: " in str(refused.value)
    assert "correct-horse" not in str(refused.value)


def test_no_setting_takes_a_file_that_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_PORT_FILE", "/a")
    with pytest.raises(SettingsError, match="PORT_FILE is set, but there is no such setting"):
        load(GeneratorLike)


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_whose_name_says_secret_is_one(service: str) -> None:
    """Else it would be shown in errors and logs, and could not be given as a file."""
    module = importlib.import_module(f"raglan_{service}.settings")
    settings = getattr(module, f"{service.capitalize()}Settings")
    for name, field in settings.model_fields.items():
        assert is_secret(field) == (redaction.redact_field(name, 1) == redaction.REDACTED), name


def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RAGLAN_DATA", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(SettingsError, match=r"has no home folder.* set RAGLAN_DATA \(or HOME\)"):
        default_data_dir()


def test_a_setting_of_traces_is_read_by_its_former_name_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGLAN_GATEWAY_TRACES_SHARE", "0.5")
    monkeypatch.setenv("RAGLAN_GATEWAY_TRACES_KEPT", "7")
    monkeypatch.setenv("RAGLAN_TRACER_TRACES_KEPT", "8")
    loaded = load(TracerSettings)
    assert (loaded.traces_share, loaded.traces_kept) == (0.5, 8)
    load(GatewaySettings)  # which does not refuse them
