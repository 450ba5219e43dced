from __future__ import annotations

import pytest
from pydantic import PositiveInt
from raglan.settings import GrpcSettings, SettingsError, load


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
