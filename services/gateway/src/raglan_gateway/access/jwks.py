"""The keys of a token issuer, fetched from its JSON Web Key Set (RFC 7517).

PyJWT's client fetches on a thread, and again for every key id that it does not know: whoever
sends made-up ids decides how often. Here at most one fetch runs, and the next waits its turn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import jwt
import structlog
from raglan import tls_trust
from raglan.errors import Unavailable

log: Final = structlog.get_logger()
_MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 100
_FETCH_S: Final = 5.0
FRESH_S: Final = 600.0
"""Age at which the set is fetched again: so long does a key stay valid that the issuer withdrew."""
PAUSE_S: Final = 10.0
"""Least time between two fetches, failed ones included, whatever ids are asked for."""
STALE_S: Final = 3600.0
"""Oldest set that is used while the issuer cannot be reached."""


class JsonWebKeys:
    """The set at one URL. Belongs to one event loop; `close` it.

    Args:
        url: of the set, from the settings only.
        clock: monotonic, in seconds.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key with an id; None where the issuer has none.

        Raises:
            Unavailable: the set cannot be fetched, and none that is young enough is at hand.
        """
        now = self._clock()
        if key_id in self._keys and now - self._fetched_at < FRESH_S:
            return self._keys[key_id]
        async with self._lock:
            now = self._clock()
            is_fresh = key_id in self._keys and now - self._fetched_at < FRESH_S
            if not is_fresh and now - self._tried_at >= PAUSE_S:
                await self._fetch()
        if self._clock() - self._fetched_at > STALE_S:
            raise Unavailable(
                "The keys of the token issuer cannot be fetched "
                "(RAGLAN_GATEWAY_OIDC_JWKS_URL); try again.",
                retry_after_s=PAUSE_S,
            )
        return self._keys.get(key_id)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        if self._client is None:
            trust = await asyncio.to_thread(tls_trust.context)
            # No proxy of the environment, no redirect: the set is where the settings say.
            self._client = httpx.AsyncClient(trust_env=False, verify=trust, follow_redirects=False)
        try:
            async with asyncio.timeout(_FETCH_S):
                self._keys = _parsed(await self._read(self._client))
        except (TimeoutError, httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
            log.warning("keys of the token issuer not fetched", reason=type(error).__name__)
        else:
            self._fetched_at = self._clock()

    async def _read(self, client: httpx.AsyncClient) -> bytes:
        async with client.stream("GET", self._url) as reply:
            if reply.status_code != 200:
                raise ValueError(f"status {reply.status_code}")
            found = bytearray()
            async for piece in reply.aiter_bytes():
                found += piece
                if len(found) > _MAX_BYTES:
                    raise ValueError("too large")
            return bytes(found)


def _parsed(data: bytes) -> dict[str, jwt.PyJWK]:
    """Return the asymmetric keys of a set by id; others and those for encryption are left out."""
    document = json.loads(data)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no key set")
    found: dict[str, jwt.PyJWK] = {}
    for entry in entries[:_MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("kty") == "oct" or entry.get("use") == "enc":
            continue
        key_id = entry.get("kid")
        if not isinstance(key_id, str):
            continue
        try:
            found[key_id] = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue  # of a kind that this version does not know
    return found
