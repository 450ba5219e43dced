"""Calls that belong to a tenant, as they look on the wire.

Their metadata names the tenant. A service of a version before tenants would not read it and would
answer with the mesh's own data, or delete it. So calls to the services that keep data go by a
method name of their own, which such a service does not know: it answers UNIMPLEMENTED, and the
pool looks for another replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc
from opentelemetry import trace

from raglan import access_tags, tenancy
from raglan.errors import InvalidInput
from raglan.telemetry import context as request_context

KEEPERS: Final = frozenset({"retriever", "ingester"})
"""The services that keep tenants' data."""

_PREFIX: Final = "/tenant."


class TenantChannel:
    """A channel on which a stub's methods have the names of a tenant's calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        """Return a method of the channel that makes calls: "unary_unary" and the like."""
        make = getattr(self._channel, kind)
        return lambda method, *args, **options: make(_PREFIX + method[1:], *args, **options)


class TenantServer:
    """A server that knows each method of the services added to it as a tenant's call, too."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add what generated code has made of a service."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Add the methods of a service, which generated code names one by one."""
        name = _PREFIX[1:] + service
        of_tenants = grpc.method_handlers_generic_handler(name, handlers)
        self._server.add_generic_rpc_handlers((of_tenants,))


def plain(method: str) -> str:
    """Return the name of a method as the contract has it."""
    return "/" + method.removeprefix(_PREFIX) if method.startswith(_PREFIX) else method


def outgoing(span: trace.Span) -> list[tuple[str, str]]:
    """Build the metadata of a call that leaves: request id, trace context, tenant, access tags."""
    metadata = request_context.outgoing(span)
    if tenant := tenancy.current():
        metadata.append((tenancy.METADATA, tenant))
    return metadata + access_tags.to_metadata()


def adopt(method: str, metadata: Iterable[tuple[str, Any]]) -> str:
    """Make the tenant and the access tags of an incoming call the current ones.

    Returns:
        The tenant.

    Raises:
        InvalidInput: several are named, one that is none, or none in a call that is a tenant's.
    """
    pairs = list(metadata)
    named = [value for key, value in pairs if key == tenancy.METADATA]
    tenancy.use("")
    access_tags.use(())
    access_tags.use(
        access_tags.from_metadata([v for key, v in pairs if key == access_tags.METADATA])
    )
    if len(named) > 1 or any(not isinstance(value, str) for value in named):
        raise InvalidInput(f"The call names {len(named)} tenants; name one ({tenancy.METADATA}).")
    tenant = named[0] if named else ""
    if method.startswith(_PREFIX) and not tenant:
        raise InvalidInput(f"The call is a tenant's and names none ({tenancy.METADATA}).")
    tenancy.use(tenant)
    return tenant
