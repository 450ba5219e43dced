"""The checks of a request between its head and its route, in their order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from raglan.errors import Forbidden, Unauthenticated
from raglan.resilience.limiter import Priority
from starlette.types import Receive, Scope

from raglan_gateway import caller, reply_headers
from raglan_gateway.access.access import Access
from raglan_gateway.admission.body import BodyLimits, LimitedBody, Quota
from raglan_gateway.admission.checks import Check, CountRefusal
from raglan_gateway.admission.load_shedder import LoadShedder
from raglan_gateway.admission.quotas import quotas, route_group
from raglan_gateway.admission.rate_limit import Admitted, RateLimit, RateLimited
from raglan_gateway.caller import ANONYMOUS, Limits
from raglan_gateway.error_reply import MalformedRequest
from raglan_gateway.settings import GatewaySettings

QUERIES: Final = frozenset({"/v1/query", "/v1/search", "/v1/chat/completions", "/v1/responses"})
"""Paths of questions, which the load shedder counts."""
UPLOADS: Final = ("/documents", "/v1/files")
"""Ends of the paths of uploads."""
PROBES: Final = frozenset({"/healthz", "/startupz", "/readyz", "/metrics", "/metrics/targets"})
"""Paths of probes and of Prometheus: neither limited in rate nor counted as in progress."""

MIN_UPLOAD_RATE: Final = 500.0
"""Bytes a second that an upload has to sustain, as in Apache's mod_reqtimeout."""

_BODIES_TOGETHER: Final = 64
"""Incomplete bodies of the largest size whose bytes are held at a time."""

_FORMS_TOGETHER: Final = 2
"""Likewise of multipart forms, whose files are kept in memory or in temporary files."""


class Admission:
    """Decides whether a request runs; see the package for the order.

    Args:
        check_origin: raises Forbidden for a request that a foreign page may have sent.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        load_shedder: LoadShedder,
        rate_limit: RateLimit,
        check_origin: Callable[[Scope], None],
        access: Access,
        count: CountRefusal,
    ) -> None:
        self._load_shedder = load_shedder
        self._rate_limit = rate_limit
        self._limits = Limits(
            settings.rate_limit_per_minute,
            settings.concurrent_per_caller,
            settings.tokens_per_minute,
        )
        self._check_origin = check_origin
        self._access = access
        self._count = count
        load_shedder.count = count
        body_s = settings.body_s
        self._small = BodyLimits(
            settings.max_request_bytes, "RAGLAN_GATEWAY_MAX_REQUEST_BYTES", body_s, None
        )
        self._upload = BodyLimits(
            settings.max_upload_bytes, "RAGLAN_GATEWAY_MAX_UPLOAD_BYTES", body_s, MIN_UPLOAD_RATE
        )
        self._incomplete = Quota(
            _BODIES_TOGETHER * settings.max_request_bytes,
            "bytes of incomplete bodies",
            self._small.setting,
            count,
        )
        self._forms = Quota(
            _FORMS_TOGETHER * settings.max_upload_bytes,
            "bytes of forms",
            self._upload.setting,
            count,
        )
        self._requests = Quota(
            settings.max_concurrent_requests,
            "requests",
            "RAGLAN_GATEWAY_MAX_CONCURRENT_REQUESTS",
            count,
        )
        self._uploads = Quota(
            settings.max_concurrent_uploads,
            "uploads",
            "RAGLAN_GATEWAY_MAX_CONCURRENT_UPLOADS",
            count,
        )

    def check_load(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Reject a query that would find the queue full. Needs the head only, and costs little.

        Raises:
            Overloaded: the queue is full.
        """
        if scope["path"] in QUERIES:
            claimed = headers.get("x-raglan-priority", "").upper()
            self._load_shedder.check(Priority.__members__.get(claimed, Priority.DEFAULT))

    @asynccontextmanager
    async def admit(
        self, scope: Scope, receive: Receive, headers: Mapping[str, str]
    ) -> AsyncIterator[Receive]:
        """Hold a place for the request; yields the `receive` that keeps to the body's limits.

        Args:
            scope: of the request.
            receive: receives the body.
            headers: those of `scope`, decoded, with names in lower case.

        Raises:
            RaglanError: the request is refused.
        """
        self._check_head(scope, headers)
        await self._check_key(scope)
        if scope["path"] in PROBES:
            yield receive
            return
        limited = await self._enter(scope)
        try:
            async with self._admit_body(scope, receive, headers) as admitted:
                yield admitted
        finally:
            if limited is not None:
                self._rate_limit.leave(limited)

    async def _enter(self, scope: Scope) -> Admitted | None:
        """Count the request against the quotas of its caller; None where it has none."""
        address = scope["client"][0] if scope["client"] else ""
        group = route_group(scope["method"], scope["path"])
        own = quotas(caller.current(), address, group, self._limits)
        if not own.limits_anything:
            return None
        try:
            admitted = await self._rate_limit.enter(own)
        except RateLimited as refused:
            self._count(Check.RATE)
            _add(scope, refused.headers)
            raise
        _add(scope, admitted.headers)
        return admitted

    @asynccontextmanager
    async def _admit_body(
        self, scope: Scope, receive: Receive, headers: Mapping[str, str]
    ) -> AsyncIterator[Receive]:
        """Hold places for the request and its body."""
        body: LimitedBody | None = None
        places = self._requests
        if scope["path"].endswith(UPLOADS) and has_body(headers):
            places = self._uploads
            is_form = headers.get("content-type", "").lower().startswith("multipart/")
            budget = self._forms if is_form else None
            body = LimitedBody(receive, headers, self._upload, budget, self._count)
            receive = body.receive
        elif has_body(headers):
            small = LimitedBody(receive, headers, self._small, self._incomplete, self._count)
            receive = await small.receive_whole()
        places.acquire()
        try:
            yield receive
        finally:
            places.release()
            if body is not None:
                body.release()

    async def _check_key(self, scope: Scope) -> None:
        """Make the sender of the key the current caller."""
        # The task of a connection's next request begins with the context of this one.
        caller.use(ANONYMOUS)
        try:
            who = await self._access.authenticate(scope)
            caller.use(who)
            self._access.authorise(who, scope["method"], scope["path"])
        except (Unauthenticated, Forbidden):
            self._count(Check.KEY)
            raise

    def _check_head(self, scope: Scope, headers: Mapping[str, str]) -> None:
        # Two Host headers may lead a proxy and the gateway to different hosts (RFC 9112, 3.2).
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        if hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
            self._count(Check.MALFORMED)
            raise MalformedRequest(f"The request has {hosts} Host headers; send one.")
        try:
            self._check_origin(scope)
        except Forbidden:
            self._count(Check.ORIGIN)
            raise


def _add(scope: Scope, headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        reply_headers.add(scope, name, value)


def has_body(headers: Mapping[str, str]) -> bool:
    """Return whether a request with these headers has a body (RFC 9112, 6.3)."""
    return "content-length" in headers or "transfer-encoding" in headers
