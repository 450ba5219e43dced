"""A pool whose calls keep to the collections of the caller's key, whatever route makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Final

from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.rpc.pool import EndpointPool
from raglan.v1 import ingester_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.access.collections import is_allowed, require

_BY_JOB: Final = frozenset({"CancelJob", "RetryJob", "WatchJob"})
"""Calls that name a job, from which their collection does not show before something changed."""


class GuardedPool(EndpointPool):
    """The pool of the retriever or of the ingester.

    A request that names another collection is refused before it leaves. Lists lose what is of
    others, and a job of another collection does not exist.
    """

    async def call(
        self,
        method: str,
        request: Any,
        *,
        deadline: Deadline,
        retry: bool = True,
        hedge: bool = False,
    ) -> Any:
        """Call like `EndpointPool.call`.

        Raises:
            Forbidden: the request names a collection that the caller's key does not allow.
        """
        if caller.current().collections is None:
            return await super().call(method, request, deadline=deadline, retry=retry, hedge=hedge)
        if isinstance(request, AsyncIterator):
            first = await anext(request)  # names the collection
            require(_named(first))
            request = _joined(first, request)
        else:
            require(_named(request))
        if method in _BY_JOB:
            await self.call("GetJob", request, deadline=deadline)
        reply = await super().call(method, request, deadline=deadline, retry=retry, hedge=hedge)
        return _allowed(reply)

    async def stream(
        self,
        method: str,
        request: Any,
        *,
        deadline: Deadline,
        first_by: Deadline | None = None,
        gap_s: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Stream like `EndpointPool.stream`, with the same refusals."""
        if caller.current().collections is not None:
            require(_named(request))
            if method in _BY_JOB:
                await self.call("GetJob", request, deadline=deadline)
        replies = super().stream(method, request, deadline=deadline, first_by=first_by, gap_s=gap_s)
        try:
            async for reply in replies:
                yield reply
        finally:
            await replies.aclose()


def _named(request: Any) -> Iterator[str]:
    """The collections that a request names."""
    fields = request.DESCRIPTOR.fields_by_name
    if "collections" in fields:
        yield from request.collections
    for field in ("collection", "name"):
        if field in fields and (name := getattr(request, field)):
            yield name
    if isinstance(request, ingester_pb2.SubmitRequest) and request.HasField("job"):
        yield request.job.collection


async def _joined(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for request in rest:
        yield request


def _allowed(reply: Any) -> Any:
    """Return a reply without what the caller's key does not allow.

    Raises:
        NotFound: it is a job of another collection.
    """
    match reply:
        case ingester_pb2.Job():
            if not is_allowed(reply.collection):
                raise NotFound(f"There is no job {reply.id!r}.")
        case ingester_pb2.ListJobsResponse():
            kept = [job for job in reply.jobs if is_allowed(job.collection)]
            del reply.jobs[:]
            reply.jobs.extend(kept)
        case ingester_pb2.ListSourcesResponse():
            shown = [each for each in reply.sources if is_allowed(each.collection)]
            reply = ingester_pb2.ListSourcesResponse(sources=shown)
        case retriever_pb2.ListCollectionsResponse():
            held = [each for each in reply.collections if is_allowed(each.name)]
            del reply.collections[:]
            reply.collections.extend(held)
    return reply
