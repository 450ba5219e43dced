"""What a Qdrant server says when it fails, in our terms."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from raglan.errors import Conflict, Internal, NotFound, Overloaded, Unavailable
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


async def test_a_busy_server_says_when_to_return():
    with pytest.raises(Overloaded) as raised:
        await QdrantStore(Failing(ResourceExhaustedResponse("", 3))).count("c", None)
    assert raised.value.retry_after_s == 3
