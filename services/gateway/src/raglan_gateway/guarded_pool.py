"""A pool whose calls keep to the collections of the caller's key, whatever route makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.rpc.pool import EndpointPool
from raglan.v1 import ingester_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.access.collections import is_allowed, require

_BY_JOB: Final = frozenset({"CancelJob", "RetryJob", "WatchJob"})
"""Calls that name a job, from which their collection does not show before something changed."""
_NAMING: Final = frozenset({"collection", "collections", "name"})
"""Fields of requests that hold names of collections."""


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


def _named(request: Message) -> Iterator[str]:
    """Yield the collections that a request names, at any depth."""
    for field, value in request.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type is None:
            if field.name in _NAMING:
                yield from values
        elif _may_name(field.message_type):
            for each in values:
                yield from _named(each)


@cache
def _may_name(message: Descriptor, above: frozenset[Descriptor] = frozenset()) -> bool:
    """Return whether messages of a type name a collection at any depth.

    Args:
        message: the type.
        above: types that it is part of; they are looked at already.
    """
    within = above | {message}
    return any(
        field.name in _NAMING
        if field.message_type is None
        else field.message_type not in within and _may_name(field.message_type, within)
        for field in message.fields
    )


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
