"""The pool that keeps a limited key to its collections, whatever message names one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from raglan.deadline import Deadline
from raglan.errors import Forbidden
from raglan.v1 import ingester_pb2, retriever_pb2
from raglan_gateway import caller
from raglan_gateway.guarded_pool import GuardedPool
from raglan_gateway.mesh import STUBS

Path = tuple[FieldDescriptor, ...]


def paths(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Paths to every field that may hold the name of a collection."""
    for field in message.fields:
        if field.message_type is None:
            is_text = field.type == FieldDescriptor.TYPE_STRING
            if is_text and ("collection" in field.name or field.name == "name"):
                yield (*above, field)
        elif all(field.message_type is not each.message_type for each in above):
            yield from paths(field.message_type, (*above, field))


def methods() -> Iterator[MethodDescriptor]:
    for module in (ingester_pb2, retriever_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


CASES = [(method, path) for method in methods() for path in paths(method.input_type)]


def naming(message: Any, path: Path, name: str) -> Any:
    """Set the field at the end of `path`."""
    field, *rest = path
    if rest:
        held = getattr(message, field.name)
        naming(held.add() if field.is_repeated else held, tuple(rest), name)
    elif field.is_repeated:
        getattr(message, field.name).append(name)
    else:
        setattr(message, field.name, name)
    return message


async def streamed(message: Any) -> AsyncIterator[Any]:
    yield message


@pytest.mark.parametrize(
    ("method", "path"),
    CASES,
    ids=[f"{method.name}-{'.'.join(each.name for each in path)}" for method, path in CASES],
)
async def test_another_collection_is_refused_wherever_a_request_names_it(
    method: MethodDescriptor, path: Path
) -> None:
    caller.use(caller.Caller("k", collections=("mine",)))
    service = method.containing_service.name.removesuffix("Service").lower()
    pool = GuardedPool(service, "127.0.0.1:1", STUBS[service])
    request = naming(GetMessageClass(method.input_type)(), path, "theirs")
    try:
        with pytest.raises(Forbidden, match="does not allow the collection 'theirs'"):
            if method.server_streaming:
                await anext(pool.stream(method.name, request, deadline=Deadline.after(1)))
            else:
                asked = streamed(request) if method.client_streaming else request
                await pool.call(method.name, asked, deadline=Deadline.after(1), retry=False)
    finally:
        await pool.close()
