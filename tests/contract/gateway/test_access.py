"""Keys in real databases, one of them killed, and tokens of an issuer that really serves keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import token_issuer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from postgres_server import PostgresServer
from raglan.database import Database, url_of
from raglan.errors import Forbidden, RaglanError, Unauthenticated, Unavailable
from raglan_gateway.access.access import KEPT_S, OUTAGE_S, Access
from raglan_gateway.access.audit import AuditLog
from raglan_gateway.access.jwks import PAUSE_S, STALE_S, JsonWebKeys
from raglan_gateway.access.key_store import NewKey, Reach
from raglan_gateway.access.tokens import Claims, TokenVerifier
from raglan_gateway.caller import Caller, Limits, Scope
from raglan_gateway.store import SCHEMA
from token_issuer import AUDIENCE, ISSUER, Issuer, signed_with, unsigned

ADMIN = NewKey("it", "", (Scope.ADMIN,), None, Limits(), None)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_of("", tmp_path / "gateway.sqlite")
    return url_of(request.getfixturevalue("postgres").url, tmp_path)


@asynccontextmanager
async def access(url: str, clock: Clock, **options: Any) -> AsyncIterator[Access]:
    database = Database(url, SCHEMA)
    made = Access(database, keep_entries=1_000, clock=clock, **options)
    try:
        await made.prepare()
        yield made
    finally:
        await made.close()
        await database.close()


async def caller_of(gateway: Access, key: str = "") -> Caller:
    sent = [(b"authorization", f"Bearer {key}".encode())] if key else []
    scope = {"path": "/v1/search", "query_string": b"", "headers": sent}
    return await gateway.authenticate(scope)


async def test_a_key_made_through_one_gateway_is_known_to_the_other(url: str) -> None:
    clock = Clock()
    async with access(url, clock) as one, access(url, clock) as other:
        limits = Limits(requests_per_minute=5, concurrent_requests=2, tokens_per_minute=100)
        key, text = await one.keys.create(ADMIN)
        made, second = await one.keys.create(
            NewKey("it", "acme", (Scope.QUERY,), ("a", "b"), limits, None)
        )
        await other.prepare()
        expected = Caller(made.id, "acme", frozenset({Scope.QUERY}), ("a", "b"), limits)
        assert await caller_of(other, second) == expected
        assert (await caller_of(other, text)).id == key.id
        with pytest.raises(Unauthenticated, match="needs a key"):
            await caller_of(other)


async def test_a_revocation_holds_in_the_other_gateway_within_its_time(url: str) -> None:
    clock = Clock()
    async with access(url, clock) as one:
        key, text = await one.keys.create(ADMIN)
        async with access(url, clock) as other:
            await caller_of(other, text)
            await one.keys.revoke(key.id, reach=Reach())
            with pytest.raises(Unauthenticated, match="revoked"):
                await caller_of(one, text)
            clock.now = KEPT_S - 0.1
            await caller_of(other, text)
            clock.now = KEPT_S
            with pytest.raises(Unauthenticated, match="revoked"):
                await caller_of(other, text)


async def test_a_key_expires_while_it_is_kept(url: str) -> None:
    wall = Clock()
    wall.now = time.time()
    async with access(url, Clock(), wall_clock=wall) as gateway:
        ends_ms = round(wall.now * 1e3) + 1_000
        _, text = await gateway.keys.create(
            NewKey("it", "", (Scope.ADMIN,), None, Limits(), ends_ms)
        )
        await caller_of(gateway, text)
        wall.now += 1.5
        with pytest.raises(Unauthenticated, match="expired"):
            await caller_of(gateway, text)


async def test_while_the_database_is_away_known_keys_stay_and_others_wait(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    clock = Clock()
    async with access(url_of(postgres.url, tmp_path), clock) as gateway:
        key, text = await gateway.keys.create(ADMIN)
        _, unseen = await gateway.keys.create(ADMIN)
        await caller_of(gateway, text)
        await asyncio.to_thread(postgres.stop)
        clock.now = KEPT_S + 1
        assert (await caller_of(gateway, text)).id == key.id
        with pytest.raises(Unavailable, match="database cannot be reached"):
            await caller_of(gateway, unseen)
        with pytest.raises(Unauthenticated, match="damaged"):
            await caller_of(gateway, text[:-1])
        clock.now = OUTAGE_S + KEPT_S
        with pytest.raises(Unavailable, match="database cannot be reached"):
            await caller_of(gateway, text)
        await asyncio.to_thread(postgres.start)
        clock.now += 10
        assert (await caller_of(gateway, text)).id == key.id
        assert (await caller_of(gateway, unseen)).scopes == {Scope.ADMIN}


async def test_a_database_that_comes_late_keeps_requests_out_until_then(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    await asyncio.to_thread(postgres.stop)
    async with access(url_of(postgres.url, tmp_path), Clock()) as gateway:
        with pytest.raises(Unavailable, match="keys cannot be checked"):
            await caller_of(gateway)
        await asyncio.to_thread(postgres.start)
        await gateway.prepare()
        assert (await caller_of(gateway)).id == ""


async def test_the_audit_log_outlasts_its_database_and_keeps_its_bound(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = Database(url_of(postgres.url, tmp_path), SCHEMA)
    await database.create()
    audit = AuditLog(database, 5)
    audit.start()
    await asyncio.to_thread(postgres.stop)
    for number in range(8):
        audit.record("document.delete", f"collections/a/documents/{number}")
    await asyncio.to_thread(postgres.start)
    async with asyncio.timeout(30):
        found: list[Any] = []
        while len(found) < 5:
            try:
                found = await audit.entries(tenant=None, before=0, limit=100)
            except Unavailable:
                await asyncio.sleep(0.05)
    assert [entry.resource[-1] for entry in found] == list("76543")
    await audit.close()
    await database.close()


# --- Tokens ---------------------------------------------------------------------------------------


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with token_issuer.serving() as made:
        yield made


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[TokenVerifier]:
    made = TokenVerifier(
        JsonWebKeys(issuer.url, clock=clock),
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["RS256", "ES256"],
        claims=Claims("scope", tenant="tenant", collections="collections", access="groups"),
    )
    yield made
    await made.close()


async def test_a_token_becomes_a_caller(issuer: Issuer, verifier: TokenVerifier) -> None:
    who, _ = await verifier.verify(issuer.token())
    assert who == Caller("jwt:anna", "acme", frozenset({Scope.QUERY}), ("a",))
    who, _ = await verifier.verify(issuer.token(scope=["admin"], sub="b"))
    assert (who.scopes, who.access) == ({Scope.ADMIN}, ())
    who, _ = await verifier.verify(issuer.token(groups=["hr", "legal"]))
    assert who.access == ("hr", "legal")
    assert issuer.fetched == 1


@pytest.mark.parametrize(
    ("claims", "error", "named"),
    [
        ({"exp": 1_000_000_000}, Unauthenticated, "expired"),
        ({"exp": None}, Unauthenticated, "lacks the claim exp"),
        ({"nbf": 4_000_000_000}, Unauthenticated, "not valid yet"),
        ({"iss": "https://evil.example"}, Unauthenticated, "another issuer"),
        ({"aud": "other"}, Unauthenticated, "another audience"),
        ({"sub": None}, Unauthenticated, "sub"),
        ({"sub": "a" * 300}, Forbidden, "subject has 300 characters"),
        ({"tenant": None}, Forbidden, "OIDC_TENANT_CLAIM"),
        ({"tenant": "a/b"}, Forbidden, "OIDC_TENANT_CLAIM"),
        ({"collections": "a"}, Forbidden, "OIDC_COLLECTIONS_CLAIM"),
        ({"groups": {"a": 1}}, Forbidden, "OIDC_ACCESS_CLAIM"),
        ({"groups": ["*"]}, Forbidden, "cannot be a tag"),
        ({"groups": [f"g{n}" for n in range(65)]}, Forbidden, "has 65 tags; the limit is 64"),
    ],
)
async def test_a_token_with_other_claims_is_refused(
    claims: dict[str, Any],
    error: type[RaglanError],
    named: str,
    issuer: Issuer,
    verifier: TokenVerifier,
) -> None:
    with pytest.raises(error, match=named):
        await verifier.verify(issuer.token(**claims))


async def test_a_token_that_nobody_signed_is_refused(
    issuer: Issuer, verifier: TokenVerifier
) -> None:
    token = issuer.token()
    public = (
        issuer.keys["one"]
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    payload = jwt.decode(token, options={"verify_signature": False})
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    for wrong in (
        unsigned(token, alg="none"),
        unsigned(token, alg="RS256"),
        unsigned(token, alg=["RS256"]),
        unsigned(token, alg="RS256", kid=5),
        signed_with(token, public, alg="HS256"),
        jwt.encode(payload, foreign, algorithm="RS256", headers={"kid": "one"}),
        jwt.encode(payload, curve, algorithm="ES256", headers={"kid": "one"}),
        jwt.encode(payload, foreign, algorithm="RS256"),
        token[:-5],
        token + "a" * 10_000,
        "a.b.c",
        "..",
    ):
        with pytest.raises(Unauthenticated) as caught:
            await verifier.verify(wrong)
        assert wrong not in caught.value.message


async def test_made_up_key_ids_fetch_the_set_once(
    issuer: Issuer, verifier: TokenVerifier, clock: Clock
) -> None:
    for number in range(50):
        with pytest.raises(Unauthenticated, match="does not have"):
            await verifier.verify(issuer.token(f"made-up-{number}"))
    assert issuer.fetched == 1
    issuer.keys["two"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    clock.now += PAUSE_S
    who, _ = await verifier.verify(issuer.token("two"))
    assert who.id == "jwt:anna"
    assert issuer.fetched == 2


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys": 1}', b"[" * 100, b"x" * 1_000_000])
async def test_a_set_that_cannot_be_read_is_not_the_senders_fault(
    body: bytes, issuer: Issuer, verifier: TokenVerifier, clock: Clock
) -> None:
    issuer.body = body
    with pytest.raises(Unavailable, match="OIDC_JWKS_URL"):
        await verifier.verify(issuer.token())
    issuer.body = None
    clock.now += PAUSE_S
    await verifier.verify(issuer.token())
    issuer.body = body
    clock.now += STALE_S - 1
    await verifier.verify(issuer.token())
    clock.now += PAUSE_S
    with pytest.raises(Unavailable, match="OIDC_JWKS_URL"):
        await verifier.verify(issuer.token())
