"""The caller of a request, and what follows from its tenant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raglan import tenancy
from raglan.errors import InvalidInput
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.v1 import ingester_pb2, retriever_pb2
from raglan_gateway import caller
from raglan_gateway.caller import ANONYMOUS, Caller
from raglan_gateway.query import Query
from raglan_gateway.shared.answer_cache import AnswerCache


@pytest.fixture(autouse=True)
def anonymous() -> Iterator[None]:
    """Tests that are no coroutines share one context."""
    yield
    caller.use(ANONYMOUS)


def test_the_caller_s_tenant_is_that_of_the_process_s_work() -> None:
    caller.use(Caller("key-1", "acme"))
    assert (tenancy.current(), caller.current().id) == ("acme", "key-1")
    caller.use(ANONYMOUS)
    assert tenancy.current() == ""


def test_a_malformed_tenant_leaves_the_caller_as_it_was() -> None:
    caller.use(Caller("key-1", "acme"))
    with pytest.raises(InvalidInput, match="cannot be a tenant's id"):
        caller.use(Caller("key-2", "Acme/../x"))
    assert (tenancy.current(), caller.current().id) == ("acme", "key-1")


def test_the_span_of_the_request_names_the_tenant() -> None:
    installed = tracing.install("test")
    try:
        with request_context.incoming({}, "GET"):
            caller.use(Caller("key-1", "acme"))
            span = tracing.current()
            assert dict(span.attributes or {})[semconv.TENANT] == "acme"  # type: ignore[attr-defined]
    finally:
        installed.close()


async def test_what_one_tenant_deletes_leaves_the_answers_of_another() -> None:
    async def revisions(names: object) -> ingester_pb2.GetRevisionsResponse:
        return ingester_pb2.GetRevisionsResponse()

    async def deleting() -> ingester_pb2.DeleteDocumentResponse:
        return ingester_pb2.DeleteDocumentResponse(revision=9)

    def question() -> Query:
        mode = retriever_pb2.SEARCH_MODE_HYBRID
        tenant = caller.current().tenant
        return Query("q", ("c",), top_k=1, mode=mode, rerank=True, tenant=tenant)

    answers = AnswerCache(600, revisions)
    for tenant in ("acme", "beta"):
        caller.use(Caller("key", tenant))
        answers.learn({"c": 5})
        answers.put(question(), "SearchReply", {"c": 5}, tenant.encode())
    await answers.deletion("c", deleting())
    assert await answers.get(question(), "SearchReply") is None
    caller.use(Caller("key", "acme"))
    kept = await answers.get(question(), "SearchReply")
    assert kept is not None
    assert kept.body == b"acme"
    await answers.close()
