"""The `openai` client against a gateway that asks for keys and has no services: every error."""

from __future__ import annotations

import os
from typing import Any

import openai
import pytest

URL = f"{os.environ['CLOSED_URL']}/v1"
ASKED: Any = {"model": "raglan", "messages": [{"role": "user", "content": "Where?"}]}


def client(variable: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=URL, api_key=os.environ[variable], max_retries=0)


@pytest.fixture
def admin() -> openai.OpenAI:
    return client("ADMIN_KEY")


@pytest.fixture
def limited() -> openai.OpenAI:
    """With the scope `query`, and one request a minute."""
    return client("LIMITED_KEY")


def check(error: openai.APIStatusError, status: int, kind: str) -> None:
    assert error.status_code == status
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert error.body["type"] == kind
    assert error.message
    assert error.request_id


def test_a_wrong_value(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        admin.chat.completions.create(**ASKED, n=5)
    check(refused.value, 400, "invalid_request_error")
    assert refused.value.param == "n"


@pytest.mark.parametrize("key", ["sk-other", "rgl_000000000000_" + "0" * 64, "rgl_0000"])
def test_a_key_that_is_none(key: str) -> None:
    stranger = openai.OpenAI(base_url=URL, api_key=key, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    check(refused.value, 401, "authentication_error")
    assert refused.value.code == "invalid_api_key"


def test_a_key_in_the_query_string(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        admin.models.list(extra_query={"api_key": os.environ["ADMIN_KEY"]})
    check(refused.value, 401, "authentication_error")


def test_another_scope_and_too_many_requests(limited: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        limited.files.list()
    check(refused.value, 403, "permission_error")
    with pytest.raises(openai.RateLimitError) as late:
        for _ in range(3):
            limited.models.list()
    check(late.value, 429, "rate_limit_error")
    assert int(late.value.response.headers["retry-after"]) >= 1


def test_an_unknown_model_and_an_unknown_resource(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        admin.chat.completions.create(**ASKED | {"model": "gpt-9"})
    check(unknown.value, 404, "invalid_request_error")
    assert unknown.value.code == "model_not_found"
    for call in (
        lambda: admin.moderations.create(input="a"),
        lambda: admin.images.generate(prompt="a", model="b"),
        lambda: admin.completions.create(model="raglan", prompt="a"),
        lambda: admin.fine_tuning.jobs.list(),
        lambda: admin.batches.list(),
    ):
        with pytest.raises(openai.NotFoundError) as lacking:
            call()
        check(lacking.value, 404, "invalid_request_error")


def test_another_method_and_another_content_type(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as method:
        admin.delete("/chat/completions", cast_to=object)
    check(method.value, 405, "invalid_request_error")
    with pytest.raises(openai.APIStatusError) as kind:
        admin.post(
            "/embeddings",
            cast_to=object,
            content=b"a",
            options={"headers": {"Content-Type": "text/plain"}},
        )
    check(kind.value, 415, "invalid_request_error")


def test_a_body_above_the_limit(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as large:
        admin.embeddings.create(model="raglan", input="a" * 2_000_000)
    check(large.value, 413, "invalid_request_error")


def test_a_service_that_is_away(admin: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as away:
        admin.chat.completions.create(**ASKED)
    check(away.value, 503, "server_error")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_error_in_the_middle_of_a_stream(admin: openai.OpenAI, api: str) -> None:
    if api == "chat":
        with pytest.raises(openai.APIError, match="retriever") as broken:
            for chunk in admin.chat.completions.create(**ASKED, stream=True):
                assert chunk.choices[0].delta.role == "assistant"
        assert broken.value.type == "server_error"
        return
    events = list(admin.responses.create(model="raglan", input="Where?", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.failed"
    assert events[-1].response.error
    assert "retriever" in events[-1].response.error.message
