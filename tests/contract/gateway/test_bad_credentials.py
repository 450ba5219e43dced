"""Each credential that is refused, in the form of each API that a client may speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gateway_serving
import httpx
import pytest
import pytest_asyncio
import token_issuer
from token_issuer import AUDIENCE, ISSUER, Issuer

ADMIN: Final = "0123456789abcdef0123456789abcdef"
_MESSAGES: Final = [{"role": "user", "content": "Where?"}]
_TOOLS: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_ACCEPT: Final = {"Accept": "application/json, text/event-stream"}
EXPIRY_S: Final = 10
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Issued:
    """A gateway that takes keys and tokens, and some that it has issued."""

    client: httpx.AsyncClient
    issuer: Issuer
    valid: str
    revoked: str
    expired: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issued(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Issued]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    async with token_issuer.serving() as issuer:
        tokens = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks_url": issuer.url}
        async with (
            gateway_serving.serving(admin_key=ADMIN, data_dir=folder, **tokens) as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=10) as client,
        ):
            valid = await key(client, scopes=["query"])
            revoked = await key(client)
            path = f"/v1/keys/{revoked['id']}"
            assert (await client.delete(path, headers=bearer(ADMIN))).is_success
            expired = await key(client, expires_in_s=1)
            async with asyncio.timeout(EXPIRY_S):
                while (await client.get("/v1/models", headers=bearer(expired["key"]))).is_success:
                    await asyncio.sleep(0.05)
            yield Issued(client, issuer, valid["key"], revoked["key"], expired["key"])


async def key(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    reply = await client.post("/v1/keys", json={"name": "it"} | body, headers=bearer(ADMIN))
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"} if text else {}


@dataclass(frozen=True)
class Credential:
    """What is sent, where, and a part of the refusal's sentence."""

    sent: Callable[[Issued], str]
    sentence: str
    in_query: bool = False


CREDENTIALS: Final = {
    "none": Credential(lambda _: "", "needs a key"),
    "a key in the query string": Credential(
        lambda it: it.valid, "Authorization: Bearer", in_query=True
    ),
    "a token in the query string": Credential(
        lambda it: it.issuer.token(), "Authorization: Bearer", in_query=True
    ),
    "an expired key": Credential(lambda it: it.expired, "expired"),
    "a revoked key": Credential(lambda it: it.revoked, "revoked"),
    "a truncated key": Credential(lambda it: it.valid[:-7], "damaged"),
    "a key of another product": Credential(lambda _: "sk-" + "a" * 48, "begin with rgl_"),
    "a token that nobody signed": Credential(
        lambda it: token_issuer.unsigned(it.issuer.token(), alg="none"), "not signed with one of"
    ),
    "a token of another issuer": Credential(
        lambda it: it.issuer.token(iss="https://evil.example"), "another issuer"
    ),
    "a token for another audience": Credential(
        lambda it: it.issuer.token(aud="other"), "another audience"
    ),
    "an expired token": Credential(lambda it: it.issuer.token(exp=1_000_000_000), "expired"),
    "a token whose key id is unknown": Credential(
        lambda it: it.issuer.token("made-up"), "does not have"
    ),
}


def ours(body: dict[str, Any]) -> str:
    assert set(body["error"]) == {"type", "code", "message", "request_id", "retryable"}
    assert (body["error"]["code"], body["error"]["retryable"]) == ("UNAUTHENTICATED", False)
    return str(body["error"]["message"])


def openai(body: dict[str, Any]) -> str:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "authentication_error"
    assert body["error"]["code"] == "invalid_api_key"
    return str(body["error"]["message"])


def cohere_and_jina(body: dict[str, Any]) -> str:
    assert body["message"] == body["detail"]
    return str(body["message"])


APIS: Final[dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], str]]]] = {
    "/v1/query": ({"query": "Where?"}, ours),
    "/mcp": (_TOOLS, ours),
    "/v1/chat/completions": ({"model": "raglan", "messages": _MESSAGES}, openai),
    "/v1/responses": ({"model": "raglan", "input": "Where?"}, openai),
    "/v1/embeddings": ({"model": "raglan", "input": "Where?"}, openai),
    "/v1/vector_stores/c/search": ({"query": "Where?"}, openai),
    "/v1/rerank": ({"query": "Where?", "documents": ["Here."]}, cohere_and_jina),
    "/v2/rerank": ({"query": "Where?", "documents": ["Here."]}, cohere_and_jina),
}
"""Path -> a body that a valid key is answered for, and the form of its errors."""


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
async def test_it_is_refused_in_the_form_of_the_api(
    issued: Issued, credential: Credential, path: str
) -> None:
    body, form = APIS[path]
    text = credential.sent(issued)
    reply = await issued.client.post(
        path,
        json=body,
        params={"api_key": text} if credential.in_query else {},
        headers=_ACCEPT | ({} if credential.in_query else bearer(text)),
    )
    assert reply.status_code == 401, reply.text
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert credential.sentence in form(reply.json())
    assert not text or text not in reply.text


@pytest.mark.parametrize("path", APIS)
async def test_what_is_valid_passes_beside_them(issued: Issued, path: str) -> None:
    """There are no services: past the check of the key, most of the routes are unavailable."""
    for text in (issued.valid, issued.issuer.token()):
        headers = _ACCEPT | bearer(text)
        reply = await issued.client.post(path, json=APIS[path][0], headers=headers)
        assert reply.status_code in (200, 503), reply.text


async def test_made_up_key_ids_do_not_fetch_the_issuers_keys_again(issued: Issued) -> None:
    headers = bearer(issued.issuer.token())
    assert (await issued.client.get("/v1/models", headers=headers)).is_success
    before = issued.issuer.fetched
    tokens = [issued.issuer.token(f"made-up-{number}") for number in range(50)]
    replies = await asyncio.gather(
        *(issued.client.get("/v1/models", headers=bearer(each)) for each in tokens)
    )
    assert {reply.status_code for reply in replies} == {401}
    assert issued.issuer.fetched <= before + 1
