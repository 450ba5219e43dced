"""A URL of Redis is checked at start, and a wrong one is named without being shown."""

from __future__ import annotations

import pytest
from raglan.settings import SettingsError, load
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.shared import redis_url

RIGHT = [
    "redis://localhost",
    "redis://localhost:6379/0",
    "redis://:secret@10.0.0.1:6379",
    "rediss://user:se%2Fcret@redis.example.org:6380/3",
    "redis://[::1]:6379/",
]
WRONG = [
    "secret",
    "http://:secret@localhost",
    "redis://",
    "redis:///0",
    "redis://:sec/ret@localhost:6379",
    "redis://:secret@localhost:sixthousand",
    "redis://:secret@localhost:99999",
    "redis://:secret@localhost:0",
    "redis://:secret@localhost/zero",
    "redis://:secret@localhost?socket_timeout=60",
    "redis://:secret@local[host",
]


@pytest.mark.parametrize("url", RIGHT)
def test_a_url_of_redis_is_accepted(url: str) -> None:
    redis_url.check(url)


@pytest.mark.parametrize("url", WRONG)
def test_a_bad_url_stops_the_start_without_being_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything else ends the start with a sentence that does not show it."""
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings)
    assert "RAGLAN_GATEWAY_REDIS_URL" in str(caught.value)
    assert "rediss://" in str(caught.value)
    for part in ("secret", "sec", "ret@", "zero", "sixthousand"):
        assert part not in str(caught.value).replace("rediss://", "")


def test_settings_do_not_show_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_URL", "redis://:secret@localhost")
    assert "secret" not in repr(load(GatewaySettings))


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://redis:6379/0", "redis://:p%40ss%2Fword@redis:6379/0"),
        ("rediss://app@redis", "rediss://app:p%40ss%2Fword@redis"),
    ],
)
def test_a_password_of_its_own_goes_into_the_url(
    url: str, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_URL", url)
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_PASSWORD", "p@ss/word")
    settings = load(GatewaySettings)
    assert settings.redis_login().get_secret_value() == whole
    assert "ss/word" not in repr(settings)


@pytest.mark.parametrize("url", ["", "redis://:secret@localhost", "redis://:@localhost"])
def test_a_password_without_a_place_stops_the_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_URL", url)
    monkeypatch.setenv("RAGLAN_GATEWAY_REDIS_PASSWORD", "other")
    with pytest.raises(SettingsError, match="RAGLAN_GATEWAY_REDIS_URL") as caught:
        load(GatewaySettings)
    assert "secret" not in str(caught.value)
    assert "other" not in str(caught.value)
