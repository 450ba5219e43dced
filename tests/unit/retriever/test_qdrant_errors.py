"""What a Qdrant server says when it fails, in our terms."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from raglan.errors import (
    Conflict,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from raglan_retriever.stores.qdrant import QdrantStore


class Failing:
    """A client whose every call fails alike."""

    def __init__(self, error: Exception):
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def call(*_: Any, **__: Any) -> Any:
            raise self._error

        return call


def status(code: int) -> UnexpectedResponse:
    return UnexpectedResponse(code, "", b"secret details", httpx.Headers())


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (status(404), NotFound, "There is no collection 'c'."),
        (status(409), Conflict, "exists already"),
        (status(401), Unavailable, "RAGLAN_RETRIEVER_QDRANT_API_KEY"),
        (status(403), Unavailable, "RAGLAN_RETRIEVER_QDRANT_API_KEY"),
        (status(503), Unavailable, "status 503"),
        (status(400), Internal, "status 400"),
        (ResponseHandlingException(httpx.ConnectError("no")), Unavailable, "QDRANT_URL"),
        (ResponseHandlingException(httpx.ReadTimeout("no")), Unavailable, "ReadTimeout"),
    ],
)
async def test_a_failure_becomes_one_of_ours_and_tells_no_details(theirs, ours, says):
    with pytest.raises(ours, match=says) as raised:
        await QdrantStore(Failing(theirs)).count("c", None)
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("code", [400, 403])
@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (
            "Filter condition limit reached (9 > 5). Help: Reduce the amount of conditions.",
            InvalidInput,
        ),
        ("Max vector storage size limit of 12.5MB reached!", StorageFull),
    ],
)
async def test_a_limit_of_strict_mode_is_told_in_the_words_of_the_server(code, said, ours):
    body = json.dumps({"status": {"error": f"Bad request: {said}"}, "time": 0}).encode()
    refused = UnexpectedResponse(code, "", body, httpx.Headers())
    with pytest.raises(ours, match="QDRANT_STRICT_MODE") as raised:
        await QdrantStore(Failing(refused)).count("c", None)
    assert said in raised.value.message


async def test_a_busy_server_says_when_to_return():
    with pytest.raises(Overloaded) as raised:
        await QdrantStore(Failing(ResourceExhaustedResponse("", 3))).count("c", None)
    assert raised.value.retry_after_s == 3
