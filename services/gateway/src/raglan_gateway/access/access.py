"""The caller of a request, from the key or token that it sends.

A key that was verified is kept for `KEPT_S`: within that time a request costs no call of the
database, and after it, a key revoked through any gateway is refused. While the database is away
nothing can be revoked through it, so keys at hand stay valid, for `OUTAGE_S` at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import structlog
from cachetools import LRUCache, TTLCache
from raglan.background import keep_running
from raglan.database import Database, DatabaseUnavailable
from raglan.errors import Conflict, Forbidden, Unauthenticated, Unavailable
from starlette.types import Scope as RequestScope

from raglan_gateway.access import api_key, routes
from raglan_gateway.access.key_store import KeyStore
from raglan_gateway.access.tokens import TokenVerifier
from raglan_gateway.caller import ANONYMOUS, Caller, Limits, Scope, held_tags
from raglan_gateway.store.model import ApiKey

log: Final = structlog.get_logger()

KEPT_S: Final = 5.0
"""Seconds after which a revocation holds in every gateway."""

OUTAGE_S: Final = 900.0
"""Longest time for which a verified key is valid while the database is away."""

_KEPT_KEYS: Final = 10_000
_KEPT_UNKNOWN: Final = 10_000
_KEPT_TOKENS: Final = 10_000
_LOOK_UPS: Final = 2
"""Unknown ids that are looked up at once: made-up ones leave the database to the known."""

_LOOK_UP_S: Final = 2.0
_AWAY_S: Final = 1.0
"""Time after a failed look-up for which no further one is tried."""

_START_AGAIN_S: Final = 1.0
_HEADERS: Final = ("x-api-key", "api-key")
_QUERY_NAMES: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "authorization", "key", "token", "x-api-key"}
)
ADMIN: Final = Caller(id="admin", access=None)
"""Whoever sends the key of the settings."""

EXPOSED: Final = (
    "The gateway listens on {host}, where others reach it, and there is no key yet. Set "
    "RAGLAN_GATEWAY_ADMIN_KEY_FILE to a file with a secret of 32 characters or more, or make a key "
    "while it listens on 127.0.0.1 (raglan keys create). RAGLAN_GATEWAY_ANONYMOUS=allow serves "
    "without keys, for a network that is closed otherwise."
)


@dataclass(slots=True)
class _Known:
    """A key as the database held it at `read_at`, on the monotonic clock."""

    key: ApiKey
    caller: Caller
    read_at: float


class Access:
    """Decides who sends a request, and whether that may use its route. Belongs to one loop.

    Args:
        database: of the gateway.
        admin_key: of the settings; "" for none.
        tokens: verifies JSON Web Tokens; None where no issuer is set.
        host: the address that the gateway listens on.
        is_open: True if a gateway without keys serves everybody.
        clock: monotonic, in seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_entries: int,
        admin_key: str = "",
        tokens: TokenVerifier | None = None,
        host: str = "127.0.0.1",
        is_open: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._admin_hash = api_key.digest(admin_key) if admin_key else None
        self._tokens = tokens
        self._host = host
        self._is_open = is_open
        self._clock = clock
        self._wall_clock = wall_clock
        self._requires_key: bool | None = True if admin_key or tokens else None
        """None until the database has said whether there is a key."""
        self.keys = KeyStore(
            database,
            keep_entries=keep_entries,
            made=self._made,
            changed=self._forget,
            has_other_admin=bool(admin_key or tokens),
        )
        self._known: LRUCache[str, _Known] = LRUCache(_KEPT_KEYS)
        self._unknown: TTLCache[str, bool] = TTLCache(_KEPT_UNKNOWN, KEPT_S, timer=clock)
        self._verified: TTLCache[bytes, tuple[Caller, float]] = TTLCache(
            _KEPT_TOKENS, KEPT_S, timer=clock
        )
        self._reading: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._look_ups = asyncio.Semaphore(_LOOK_UPS)
        self._away_until = float("-inf")
        self._created = False
        self._watch: asyncio.Task[None] | None = None

    # --- Life -------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Migrate the database and see whether there is a key; a server that is away may come.

        Raises:
            RaglanError: the gateway must not start like this.
        """
        try:
            await self._look()
        except Conflict:
            raise
        except Unavailable as error:
            log.warning("the database of the keys is awaited", reason=error.message)
        if self._requires_key is False and not self._is_open:
            raise Forbidden(EXPOSED.format(host=self._host))

    def start(self) -> None:
        """Start to watch for the first key, which another gateway may make."""
        self._watch = asyncio.create_task(keep_running("watch for keys", self._watch_keys))

    async def close(self) -> None:
        """Stop watching, and close connections."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
        if self._tokens is not None:
            await self._tokens.close()

    async def _watch_keys(self) -> None:
        while not (self._requires_key and self._created):
            await asyncio.sleep(KEPT_S if self._created else _START_AGAIN_S)
            try:
                await self._look()
            except Unavailable:
                continue

    async def _look(self) -> None:
        if not self._created:
            await self._database.create()
            self._created = True
        if not self._requires_key:
            # Never back to False: the rows of revoked keys stay.
            self._requires_key = await self.keys.has_any()

    # --- Requests ---------------------------------------------------------------------------------

    async def authenticate(self, scope: RequestScope) -> Caller:
        """Return the caller of a request; ANONYMOUS where no key is required.

        Raises:
            Unauthenticated: a key is required, and there is no valid one.
            Forbidden: a token lacks what the settings require.
            Unavailable: the database or the issuer's keys are away, and this key is not at hand.
        """
        _refuse_key_in_query(scope["query_string"])
        if scope["path"] in routes.PUBLIC:
            return ANONYMOUS
        if self._requires_key is None:
            raise Unavailable(
                "The gateway's database cannot be reached, so keys cannot be checked; try again.",
                retry_after_s=_START_AGAIN_S,
            )
        if not self._requires_key:
            if not self._is_open:
                raise Unauthenticated(EXPOSED.format(host=self._host))
            return ANONYMOUS
        return await self._verify(_presented(scope["headers"]))

    def authorise(self, who: Caller, method: str, path: str) -> None:
        """Check that a caller may use a route.

        Raises:
            Forbidden: its key lacks the scope.
        """
        if path in routes.PUBLIC:
            return
        needed = routes.rule_of(method, path).scope
        if needed not in who.scopes and Scope.ADMIN not in who.scopes:
            held = ", ".join(sorted(who.scopes)) or "none"
            raise Forbidden(f"The route needs the scope {needed}; the key has {held}.")

    async def _verify(self, text: str) -> Caller:
        if self._admin_hash is not None and hmac.compare_digest(
            api_key.digest(text), self._admin_hash
        ):
            return ADMIN
        if text.startswith(api_key.PREFIX):
            return await self._verify_key(text)
        if self._tokens is not None and text.count(".") == 2:
            return await self._verify_token(self._tokens, text)
        raise Unauthenticated("The key is not one of this gateway; its keys begin with rgl_.")

    async def _verify_token(self, tokens: TokenVerifier, text: str) -> Caller:
        digest = hashlib.sha256(text.encode(errors="replace")).digest()
        found = self._verified.get(digest)
        if found is None:
            found = self._verified[digest] = await tokens.verify(text)
        who, expires_s = found
        if self._wall_clock() >= expires_s:
            raise Unauthenticated("The token has expired; get a new one.")
        return who

    async def _verify_key(self, text: str) -> Caller:
        presented = api_key.parse(text)
        known = await self._find(presented.id)
        if known is None:
            raise Unauthenticated("There is no such key.")
        key, now_ms = known.key, self._wall_clock() * 1e3
        is_former = key.former_hash is not None and hmac.compare_digest(
            presented.hash, key.former_hash
        )
        if not is_former and not hmac.compare_digest(presented.hash, key.hash):
            raise Unauthenticated("There is no such key.")
        if key.revoked_ms is not None:
            raise Unauthenticated(f"The key {key.id} is revoked.")
        if key.expires_ms is not None and now_ms >= key.expires_ms:
            raise Unauthenticated(f"The key {key.id} has expired.")
        if is_former and now_ms >= (key.former_until_ms or 0):
            raise Unauthenticated(f"The key {key.id} was rotated; use its new secret.")
        return known.caller

    # --- Keys at hand -----------------------------------------------------------------------------

    async def _find(self, id_: str) -> _Known | None:
        known = self._known.get(id_)
        now = self._clock()
        if known is not None and now - known.read_at < KEPT_S:
            return known
        if known is None and id_ in self._unknown:
            return None
        try:
            key = await self._look_up(id_, is_known=known is not None)
        except (TimeoutError, DatabaseUnavailable):
            if known is not None and now - known.read_at < OUTAGE_S:
                return known
            raise Unavailable(
                "The gateway's database cannot be reached, so the key cannot be checked; try "
                "again.",
                retry_after_s=_AWAY_S,
            ) from None
        if key is None:
            self._known.pop(id_, None)
            self._unknown[id_] = True
            return None
        found = self._known[id_] = _Known(key, _caller_of(key), now)
        return found

    async def _look_up(self, id_: str, *, is_known: bool) -> ApiKey | None:
        if self._clock() < self._away_until:
            raise TimeoutError
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                if is_known:
                    return await self._read(id_)
                async with self._look_ups:
                    return await self._read(id_)
        except (TimeoutError, DatabaseUnavailable):
            if is_known or not self._look_ups.locked():
                self._away_until = self._clock() + _AWAY_S
            raise

    async def _read(self, id_: str) -> ApiKey | None:
        """Read a key; requests of the same key share one reading, which none of them ends."""
        task = self._reading.get(id_)
        if task is None:
            task = self._reading[id_] = asyncio.create_task(self.keys.find(id_))
            task.add_done_callback(lambda done: self._was_read(id_, done))
        return await asyncio.shield(task)

    def _was_read(self, id_: str, task: asyncio.Task[ApiKey | None]) -> None:
        if self._reading.get(id_) is task:
            del self._reading[id_]
        if not task.cancelled():
            task.exception()  # all who waited may have left

    def _made(self) -> None:
        self._requires_key = True

    def _forget(self, id_: str) -> None:
        """Read a key anew that this process has changed."""
        self._reading.pop(id_, None)
        self._unknown.pop(id_, None)
        if (known := self._known.get(id_)) is not None:
            known.read_at = self._clock() - KEPT_S


def _caller_of(key: ApiKey) -> Caller:
    known = {str(scope): scope for scope in Scope}
    return Caller(
        id=key.id,
        tenant=key.tenant,
        scopes=frozenset(known[each] for each in key.scopes if each in known),
        collections=None if key.collections is None else tuple(key.collections),
        limits=Limits(
            requests_per_minute=key.requests_per_minute,
            concurrent_requests=key.concurrent_requests,
            tokens_per_minute=key.tokens_per_minute,
        ),
        access=held_tags(key.access, key.scopes),
    )


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the key that a request holds. Each header counts: a proxy may read another one."""
    found: set[str] = set()
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
        if name in _HEADERS and value:
            found.add(value)
        elif name == "authorization" and value:
            scheme, _, value = value.partition(" ")
            if scheme.lower() != "bearer" or not value.strip():
                raise Unauthenticated(
                    "The Authorization header has another form than `Bearer <key>`."
                )
            found.add(value.strip())
    if not found:
        raise Unauthenticated(
            "The gateway needs a key: send it as `Authorization: Bearer <key>` "
            "(RAGLAN_API_KEY for raglan's commands)."
        )
    if len(found) > 1:
        raise Unauthenticated("The request has several keys; send one.")
    return found.pop()


def _refuse_key_in_query(query: bytes) -> None:
    if not query:
        return
    text = query.decode("latin-1")
    fields = parse_qsl(text, keep_blank_values=True)
    names = {name.lower() for name, _ in fields}
    # Decoded: a client may escape any character of it.
    if names & _QUERY_NAMES or any(api_key.PREFIX in part for field in fields for part in field):
        raise Unauthenticated(
            "A key in the query string stays in the logs of proxies and in histories: send it as "
            "`Authorization: Bearer <key>`, and rotate the one that you sent."
        )
