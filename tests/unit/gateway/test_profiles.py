"""Profiles: what they set, what a request keeps, and what a wrong file says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from raglan.errors import InvalidInput
from raglan.settings import SettingsError
from raglan.v1 import common_pb2
from raglan_gateway import profiles
from raglan_gateway.api import schemas
from raglan_gateway.profiles import Profiles
from raglan_gateway.settings import GatewaySettings, addresses_by_name
from raglan_gateway.strategies.startup import warn_without_model
from structlog.testing import capture_logs

FILE = """
[profiles.support]
instructions = "Address the reader politely."
language = "German"
top_k = 7
temperature = 0.2
generator = ["large", "default"]

[profiles.fast]
top_k = 2

[collections]
handbook = "support"
"""


def read(tmp_path: Path, text: str = FILE) -> Profiles:
    path = tmp_path / "profiles.toml"
    path.write_text(text)
    return profiles.read(path, ["large"])


def applied(known: Profiles, **body: Any) -> tuple[schemas.QueryRequest, profiles.Profile]:
    request = schemas.QueryRequest.model_validate({"query": "Why?", **body})
    return known.apply(request, "default")


def test_the_built_in_profiles_set_top_k_and_reranking() -> None:
    fast, thorough = (applied(Profiles(), profile=name)[0] for name in ("fast", "thorough"))
    assert (fast.top_k, fast.rerank) == (5, False)
    assert (thorough.top_k, thorough.rerank) == (20, True)
    assert Profiles().names() == ("fast", "balanced", "thorough")


def test_what_a_request_says_itself_is_kept_even_if_it_is_the_default() -> None:
    body, _ = applied(Profiles(), profile="fast", top_k=10, rerank=True)
    assert (body.top_k, body.rerank) == (10, True)


def test_the_file_adds_profiles_and_replaces_built_in_ones(tmp_path: Path) -> None:
    known = read(tmp_path)
    body, profile = applied(known, profile="support")
    assert (body.top_k, body.temperature, profile.generator) == (7, 0.2, ["large", "default"])
    assert profile.prompt == "Address the reader politely.\nAnswer in this language: German."
    assert applied(known, profile="fast")[0].top_k == 2
    assert "support" in known.names()


def test_a_collection_has_a_profile_unless_the_request_names_one(tmp_path: Path) -> None:
    known = read(tmp_path)
    assert applied(known, collections=["handbook"])[0].top_k == 7
    assert applied(known, collections=["handbook"], profile="thorough")[0].top_k == 20
    assert applied(known, collections=["handbook", "other"])[0].top_k == 10
    assert applied(known)[0].top_k == 10


def test_a_search_takes_what_concerns_it(tmp_path: Path) -> None:
    request = schemas.SearchRequest(query="Why?", profile="support")
    body, _ = read(tmp_path).apply(request, "default")
    assert body.top_k == 7


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="no profile 'x'; the profiles are: fast, balanced"):
        applied(Profiles(), profile="x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[profiles.a]\ntopk = 3", "topk"),
        ('[profiles.a]\nmode = "fuzzy"', "mode"),
        ('[profiles.a]\ngenerator = ["huge"]', "generator huge; there are default, large"),
        ('[collections]\nhandbook = "none"', "profile none, which does not exist"),
        (f'[profiles.a]\ninstructions = "{"x" * 4_000}"', "3800 characters"),
        ("[profiles", "PROFILES_FILE"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read(tmp_path, text)


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PROFILES_FILE"):
        profiles.read(tmp_path / "none.toml", [])


def test_generators_have_names_and_any_number_of_addresses() -> None:
    assert addresses_by_name("small=a:1, large=b:1,c:1") == {"small": "a:1", "large": "b:1,c:1"}
    assert addresses_by_name("") == {}


@pytest.mark.parametrize("value", ["a:1", "=a:1", "Small=a:1", "a=b:1,a=c:1", "default=a:1", "a="])
def test_wrong_generators_are_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="small=host:7104"):
        GatewaySettings(generators=value)


STRATEGIES = """
[profiles.careful]
strategy = "condense"
generator = ["large"]
second_try = "multi_query"
second_try_below = 0.4

[profiles.words]
second_try = "lexical"

[profiles.cheap]
strategy = "hyde"
rewriter = "large"
"""


def test_a_profile_names_a_strategy_and_a_request_another(tmp_path: Path) -> None:
    known = read(tmp_path, STRATEGIES)
    body, profile = applied(known, profile="careful")
    tried = (body.strategy, body.second_try, body.second_try_below)
    assert tried == ("condense", "multi_query", 0.4)
    assert profile.writes_with == "large"
    assert applied(known, profile="careful", strategy="none")[0].strategy == "none"
    assert applied(known, profile="words")[1].writes_with == "default"
    assert [name for name, _ in known.with_strategy()] == ["careful", "cheap"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('strategy = "guess"', "strategy"),
        ('second_try = "again"', "second_try"),
        ("query_count = 9", "query_count"),
        ('rewriter = "small"', "names the generator small; there are default, large"),
    ],
)
def test_a_wrong_strategy_ends_the_start(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(tmp_path, f"[profiles.a]\n{line}\n")


async def test_a_strategy_without_a_model_is_named_at_start_once_its_generator_is_known(
    tmp_path: Path,
) -> None:
    known: dict[str, common_pb2.ServiceInfo] = {}
    profiles_ = read(tmp_path, STRATEGIES)
    with capture_logs() as lines:
        warning = asyncio.create_task(warn_without_model(profiles_, known, every_s=0.01))
        await asyncio.sleep(0.05)
        assert (lines, warning.done()) == ([], False)
        known["generator"] = common_pb2.ServiceInfo(engine="extractive")
        known["generator_large"] = common_pb2.ServiceInfo(engine="extractive")
        await asyncio.wait_for(warning, 10)
    assert [(line["profile"], line["engine"]) for line in lines] == [
        ("careful", "extractive"),
        ("cheap", "extractive"),
    ]
