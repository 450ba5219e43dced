"""JSON Web Tokens (RFC 7519) of one issuer, checked by PyJWT with the issuer's own keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from raglan import access_tags, tenancy
from raglan.errors import Forbidden, InvalidInput, Unauthenticated

from raglan_gateway.access.jwks import JsonWebKeys
from raglan_gateway.caller import Caller, Scope, held_tags

MAX_CHARS: Final = 8_192
_MAX_KEY_ID_CHARS: Final = 256
_MAX_SUBJECT_CHARS: Final = 252
"""Names of tenants."""

_LEEWAY_S: Final = 30


@dataclass(frozen=True, slots=True)
class Claims:
    """Names of the claims that become a caller; "" for one that is not read."""

    scopes: str
    tenant: str
    collections: str
    access: str = ""


class TokenVerifier:
    """Verifies tokens.

    Args:
        keys: of the issuer.
        issuer: the `iss` that a token must have.
        audience: the `aud` that it must have.
        algorithms: those that are allowed.
        claims: names of the claims that become the caller.
    """

    def __init__(
        self,
        keys: JsonWebKeys,
        *,
        issuer: str,
        audience: str,
        algorithms: list[str],
        claims: Claims,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._claims = claims

    async def verify(self, token: str) -> tuple[Caller, float]:
        """Return the caller that a token stands for, and when it expires, in seconds since 1970.

        Raises:
            Unauthenticated: it is not valid; the message does not repeat it.
            Forbidden: it is valid, and lacks a claim that the settings require.
            Unavailable: the issuer's keys cannot be fetched.
        """
        key = await self._keys.key(self._key_id(token))
        if key is None:
            raise Unauthenticated("The token names a key that its issuer does not have.")
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_reason(error)) from None
        return self._caller(payload), float(payload["exp"]) + _LEEWAY_S

    async def close(self) -> None:
        """Close the connections to the issuer."""
        await self._keys.close()

    def _key_id(self, token: str) -> str:
        if len(token) > MAX_CHARS:
            raise Unauthenticated(f"The token has {len(token)} characters; the limit: {MAX_CHARS}.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated("The token is damaged; get a new one.") from None
        if header.get("alg") not in self._algorithms:
            allowed = ", ".join(self._algorithms)
            raise Unauthenticated(
                f"The token is not signed with one of {allowed} (RAGLAN_GATEWAY_OIDC_ALGORITHMS)."
            )
        key_id = header.get("kid")
        if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_KEY_ID_CHARS:
            raise Unauthenticated("The token does not name its key (`kid`).")
        return key_id

    def _caller(self, payload: Mapping[str, Any]) -> Caller:
        return Caller(
            id=f"jwt:{self._subject(payload)}",
            tenant=self._tenant(payload),
            scopes=self._scopes(payload),
            collections=self._collections(payload),
            access=held_tags(self._access(payload), self._scopes(payload)),
        )

    def _subject(self, payload: Mapping[str, Any]) -> str:
        subject = str(payload["sub"])
        # Cut, two of them could be one owner.
        if len(subject) > _MAX_SUBJECT_CHARS:
            raise Forbidden(
                f"The token's subject has {len(subject)} characters; the limit: "
                f"{_MAX_SUBJECT_CHARS}."
            )
        return subject

    def _scopes(self, payload: Mapping[str, Any]) -> frozenset[Scope]:
        given = payload.get(self._claims.scopes)
        words = given.split() if isinstance(given, str) else given
        known = {str(scope): scope for scope in Scope}
        if not isinstance(words, list):
            return frozenset()
        return frozenset(known[word] for word in words if isinstance(word, str) and word in known)

    def _tenant(self, payload: Mapping[str, Any]) -> str:
        if not (name := self._claims.tenant):
            return ""
        tenant = payload.get(name)
        # Without it the token would reach the mesh's own collections.
        if not isinstance(tenant, str) or not re.fullmatch(tenancy.TENANT_ID[1:-1], tenant):
            raise Forbidden(
                f"The token has no claim {name} with a tenant's name "
                "(RAGLAN_GATEWAY_OIDC_TENANT_CLAIM)."
            )
        return tenant

    def _collections(self, payload: Mapping[str, Any]) -> tuple[str, ...] | None:
        if not (name := self._claims.collections):
            return None
        given = payload.get(name)
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise Forbidden(
                f"The token has no claim {name} with a list of collections "
                "(RAGLAN_GATEWAY_OIDC_COLLECTIONS_CLAIM)."
            )
        return tuple(given)

    def _access(self, payload: Mapping[str, Any]) -> tuple[str, ...] | None:
        if not (name := self._claims.access):
            return None
        given = payload.get(name, [])
        words = given.split() if isinstance(given, str) else given
        if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
            raise Forbidden(
                f"The token's claim {name} is no list of access tags "
                "(RAGLAN_GATEWAY_OIDC_ACCESS_CLAIM)."
            )
        try:
            return access_tags.check(words, of=f"the claim {name}")
        except InvalidInput as error:
            raise Forbidden(error.message) from None


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired; get a new one."
        case jwt.InvalidIssuerError():
            return "The token is of another issuer (RAGLAN_GATEWAY_OIDC_ISSUER)."
        case jwt.InvalidAudienceError():
            return "The token is for another audience (RAGLAN_GATEWAY_OIDC_AUDIENCE)."
        case jwt.MissingRequiredClaimError():
            return f"The token lacks the claim {error.claim}."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet; compare the clocks."
        case _:
            return "The token is not valid."
