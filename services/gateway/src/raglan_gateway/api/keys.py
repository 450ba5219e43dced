"""`/v1/keys` and `/v1/audit`: make, list, rotate and revoke keys; read what changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from raglan import access_tags, tenancy
from raglan.database import now_ms
from raglan.errors import Forbidden, InvalidInput
from raglan.identifiers import shortened

from raglan_gateway import caller
from raglan_gateway.access.access import Access
from raglan_gateway.access.audit import AuditLog
from raglan_gateway.access.collections import refuse_limited
from raglan_gateway.access.key_store import NewKey, Reach, holds
from raglan_gateway.api.schemas import CollectionName, Described
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import NonBlankText, PlainText
from raglan_gateway.caller import Limits, Scope, held_tags
from raglan_gateway.store.model import ApiKey, AuditEntry

_YEAR_S: Final = 366 * 24 * 3600
_MAX_LIMIT: Final = 1_000_000_000
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]
ScopeName = Literal["query", "ingest", "admin"]


KeyAccess = Annotated[
    list[Annotated[str, Field(pattern=rf"{access_tags.TAG}|^\*$", max_length=64)]],
    Field(max_length=access_tags.MAX_TAGS, fail_fast=True, examples=[["hr"]]),
]


class KeyLimits(Strict):
    """Limits of a key of its own; 0 for none."""

    requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests a minute, in each group of routes (answer, search, read, write)."""
    concurrent_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests in progress at once, in each group of routes."""
    tokens_per_minute: Annotated[int, Field(ge=0, le=_MAX_LIMIT)] = 0
    """Tokens that the generator writes for it in a minute."""


class NewApiKey(Strict):
    """A key to be made."""

    name: Annotated[NonBlankText, Field(max_length=128, examples=["open-webui"])]
    """Says who uses it."""
    scopes: list[ScopeName] = Field(default=["query"], min_length=1, max_length=3)
    """Scopes: `query` reads, `ingest` changes documents and collections, `admin` is all."""
    collections: Annotated[list[CollectionName], Field(min_length=1, max_length=100)] | None = None
    """The collections that it may touch; without them, all of its tenant."""
    access: KeyAccess | None = None
    """Access tags of the documents that it reaches besides those without tags; `["*"]` for every
    document. Without them: every document for the scope `admin`, none with tags for others."""
    tenant: Annotated[str, Field(pattern=tenancy.TENANT_ID, max_length=63)] | None = None
    """Tenant whose data it sees; without it, that of the key that makes it."""
    limits: KeyLimits = KeyLimits()
    """Limits of its own."""
    expires_in_s: Annotated[int, Field(ge=1, le=10 * _YEAR_S)] | None = None
    """Seconds until it expires; without them, it does not."""


class Rotation(Strict):
    """Rotation of a key."""

    overlap_s: Annotated[int, Field(ge=0, le=_YEAR_S)] = 86_400
    """Seconds for which the former secret is valid beside the new one."""


_ROTATION: Final = Rotation()


class KeyInfo(Described):
    """A key without its secret."""

    id: str
    name: str
    tenant: str
    """Empty for the mesh's own."""
    scopes: list[str]
    collections: list[str] | None
    """None for all of its tenant."""
    access: list[str] | None = None
    """Access tags that it was made with; see the body of `POST /v1/keys`."""
    limits: dict[str, int]
    state: str
    """`active`, `expired` or `revoked`."""
    created_at: str
    rotated_at: str | None
    former_until: str | None
    """Until when the secret before the last rotation is valid."""
    expires_at: str | None
    revoked_at: str | None


class MadeKey(KeyInfo):
    """A key with its secret, which is shown this once."""

    key: str


class Keys(Described):
    """A page of keys, by id."""

    keys: list[KeyInfo]
    next_after: str | None
    """`after` of the next page; None at the end."""


class AuditEntryInfo(Described):
    """One change."""

    id: int
    at: str
    caller: str
    """Id of the key, `admin` for the key of the settings, `jwt:` and the subject of a token;
    empty where no key was required."""
    tenant: str
    action: str
    resource: str
    """Path, or id, of what was changed."""
    request_id: str


class Audit(Described):
    """A page of the audit log, newest first."""

    entries: list[AuditEntryInfo]
    next_before: int | None
    """`before` of the next page; None at the end."""


def router(access: Access, audit: AuditLog) -> APIRouter:
    """The routes of keys and of the audit log."""
    routes = APIRouter(tags=["keys"])
    store = access.keys

    @routes.post("/v1/keys", status_code=201)
    async def create_key(body: NewApiKey, response: Response) -> MadeKey:
        """Make a key. The reply is the only one that shows it."""
        _secret(response)
        key, text = await store.create(_checked(body))
        return MadeKey(key=text, **_info(key))

    @routes.get("/v1/keys")
    async def list_keys(
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[PlainText, Query(max_length=32)] = "",
    ) -> Keys:
        """Keys by id, without their secrets; revoked ones are among them."""
        _secret(response)
        found = await store.keys(reach=_reach(), after=after, limit=limit + 1)
        last = found[limit - 1].id if len(found) > limit else None
        return Keys(keys=[KeyInfo(**_info(key)) for key in found[:limit]], next_after=last)

    @routes.get("/v1/keys/{key_id}")
    async def get_key(key_id: KeyId, response: Response) -> KeyInfo:
        """One key, without its secret."""
        _secret(response)
        return KeyInfo(**_info(await store.get(key_id, reach=_reach())))

    @routes.post("/v1/keys/{key_id}/rotate")
    async def rotate_key(key_id: KeyId, response: Response, body: Rotation = _ROTATION) -> MadeKey:
        """Give a key a new secret, beside which the former one stays valid for a while."""
        _secret(response)
        overlap_ms = body.overlap_s * 1000
        key, text = await store.rotate(key_id, reach=_reach(), overlap_ms=overlap_ms)
        return MadeKey(key=text, **_info(key))

    @routes.delete("/v1/keys/{key_id}")
    async def revoke_key(key_id: KeyId, response: Response) -> KeyInfo:
        """End a key: within 5 seconds no gateway takes it any more."""
        _secret(response)
        return KeyInfo(**_info(await store.revoke(key_id, reach=_reach())))

    @routes.get("/v1/audit")
    async def list_audit(
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int, Query(ge=0, le=2**62)] = 0,
    ) -> Audit:
        """Changes of keys, collections, documents and jobs, newest first."""
        _secret(response)
        refuse_limited("Entries of the audit log")
        found = await audit.entries(tenant=_reach().tenant, before=before, limit=limit + 1)
        last = found[limit - 1].id if len(found) > limit else None
        return Audit(entries=[_entry(each) for each in found[:limit]], next_before=last)

    return routes


def _secret(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


def _reach() -> Reach:
    """The keys that the caller may see and change; all, where its own key is limited in nothing."""
    who = caller.current()
    if who.collections is None:
        return Reach(who.tenant or None, access=who.access)
    return Reach(who.tenant, frozenset(who.collections), who.access)


def _checked(body: NewApiKey) -> NewKey:
    """Check that no key is made that may do more than its maker.

    Raises:
        Forbidden: another tenant, or collections or access tags that the caller's own key does
            not have.
    """
    who = caller.current()
    tenant = who.tenant if body.tenant is None else body.tenant
    # A collection of another tenant is another one, whatever its name.
    if (who.tenant or who.collections is not None) and tenant != who.tenant:
        raise Forbidden(f"The key makes keys of its own tenant, not of {tenant!r}.")
    collections = None if body.collections is None else tuple(dict.fromkeys(body.collections))
    if who.collections is not None:
        beyond = set(collections or ()) - set(who.collections)
        if collections is None or beyond:
            named = shortened(min(beyond)) if beyond else "all collections"
            raise Forbidden(f"The key allows {named} neither to its user nor to keys made with it.")
    if not holds(who.access, held_tags(body.access, body.scopes)):
        raise Forbidden(
            "The key makes keys that reach no more documents than itself; name access tags that it "
            "holds (access, raglan keys create --access)."
        )
    if len(set(body.scopes)) != len(body.scopes):
        raise InvalidInput("scopes names one twice.")
    return NewKey(
        name=body.name.strip(),
        tenant=tenant,
        scopes=tuple(map(Scope, body.scopes)),
        collections=collections,
        limits=Limits(**body.limits.model_dump()),
        expires_ms=now_ms() + body.expires_in_s * 1000 if body.expires_in_s else None,
        access=None if body.access is None else tuple(dict.fromkeys(body.access)),
    )


def _info(key: ApiKey) -> dict[str, Any]:
    now = now_ms()
    is_expired = key.expires_ms is not None and key.expires_ms <= now
    former = key.former_until_ms if (key.former_until_ms or 0) > now else None
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": key.scopes,
        "collections": key.collections,
        "access": key.access,
        "limits": {
            "requests_per_minute": key.requests_per_minute,
            "concurrent_requests": key.concurrent_requests,
            "tokens_per_minute": key.tokens_per_minute,
        },
        "state": "revoked" if key.revoked_ms is not None else "expired" if is_expired else "active",
        "created_at": _iso(key.created_ms),
        "rotated_at": _iso(key.rotated_ms),
        "former_until": _iso(former),
        "expires_at": _iso(key.expires_ms),
        "revoked_at": _iso(key.revoked_ms),
    }


def _entry(found: AuditEntry) -> AuditEntryInfo:
    return AuditEntryInfo(
        id=found.id,
        at=_iso(found.at_ms) or "",
        caller=found.caller,
        tenant=found.tenant,
        action=found.action,
        resource=found.resource,
        request_id=found.request_id,
    )


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1e3, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
