"""A URL of the database is checked at start, and a wrong one is named without being shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from raglan.database import url_of
from raglan.settings import SettingsError, load
from raglan_ingester.settings import IngesterSettings

URL = "RAGLAN_INGESTER_DATABASE_URL"
PASSWORD = "RAGLAN_INGESTER_DATABASE_PASSWORD"


def test_a_password_of_its_own_goes_into_the_url(tmp_path: Path) -> None:
    whole = url_of(
        "postgresql://raglan@postgres:5432/raglan", tmp_path / "ingester.sqlite", "p@ss/word"
    )
    assert whole.startswith("postgresql+psycopg://raglan:p%40ss%2Fword@postgres:5432/raglan?")


@pytest.mark.parametrize(
    "url",
    [
        "secret",
        "postgresql://raglan:secret@postgres:port/raglan",
        "mysql://raglan:secret@mysql/raglan",
    ],
)
def test_a_bad_url_stops_the_start_without_being_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, url)
    with pytest.raises(SettingsError, match=f"{URL} .*postgresql://") as caught:
        load(IngesterSettings)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "postgresql://raglan:secret@postgres/raglan"])
def test_a_password_without_a_place_stops_the_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv(PASSWORD, "other")
    with pytest.raises(SettingsError, match=PASSWORD) as caught:
        load(IngesterSettings)
    assert "secret" not in str(caught.value)
    assert "other" not in str(caught.value)


def test_text_is_utf8_whatever_the_database_was_made_with(tmp_path: Path) -> None:
    whole = url_of("postgresql://raglan@postgres/raglan", tmp_path / "ingester.sqlite")
    assert "client_encoding=utf8" in whole
    given = url_of(
        "postgresql://raglan@postgres/raglan?connect_timeout=30", tmp_path / "ingester.sqlite"
    )
    assert "connect_timeout=30" in given
