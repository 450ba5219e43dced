"""Keys of a gateway without services: who gets in, with what, and what is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import pytest
from pydantic import ValidationError
from raglan.errors import Forbidden
from raglan.settings import SettingsError, load
from raglan_gateway.access import api_key
from raglan_gateway.access.routes import PUBLIC, RULES, rule_of
from raglan_gateway.app import build
from raglan_gateway.caller import Scope
from raglan_gateway.settings import GatewaySettings
from starlette.routing import Route

ADMIN = "0123456789abcdef0123456789abcdef"
SEARCH = {"query": "a", "top_k": 0}
"""Refused with 422 once the key has passed."""


@asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = build(GatewaySettings(**(gateway_serving.NOWHERE | options)))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def made(client: httpx.AsyncClient, by: str = ADMIN, **body: Any) -> dict[str, Any]:
    reply = await client.post("/v1/keys", json={"name": "it"} | body, headers=bearer(by))
    assert reply.status_code == 201, reply.text
    assert reply.headers["cache-control"] == "no-store"
    return dict(reply.json())


async def refusal(client: httpx.AsyncClient, key: str | None) -> str:
    headers = {} if key is None else bearer(key)
    reply = await client.post("/v1/search", json=SEARCH, headers=headers)
    assert reply.status_code == 401, reply.text
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["type"] == "unauthenticated"
    assert key is None or key not in reply.text
    return str(reply.json()["error"]["message"])


async def passes(client: httpx.AsyncClient, key: str) -> bool:
    reply = await client.post("/v1/search", json=SEARCH, headers=bearer(key))
    return reply.status_code == 422


def routes_of(routes: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those that the OpenAPI document hides included."""
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())
        elif router := getattr(route, "original_router", None):
            yield from routes_of(router.routes)


async def test_every_route_has_its_rule_and_every_rule_a_route() -> None:
    app = build(GatewaySettings(**gateway_serving.NOWHERE))
    found = {(method, path) for method, path in routes_of(app.routes) if path not in PUBLIC}
    assert found == set(RULES)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("HEAD", "/v1/collections/a", Scope.QUERY),
        ("GET", "/v1/collections/a/documents/b/c.md", Scope.QUERY),
        ("DELETE", "/v1/collections/a/documents/b/c.md", Scope.INGEST),
        ("POST", "/v1/collections/a/documents/delete", Scope.INGEST),
        ("GET", "/v1/keys", Scope.ADMIN),
        ("GET", "/v1/collections/a/b", Scope.ADMIN),
        ("POST", "/new", Scope.ADMIN),
    ],
)
def test_the_rule_of_a_path(method: str, path: str, scope: Scope) -> None:
    assert rule_of(method, path).scope is scope


async def test_on_loopback_no_key_is_needed_until_there_is_one() -> None:
    async with gateway() as client:
        assert await passes(client, "sk-whatever")
        refused = await client.post("/v1/keys", json={"name": "it"})
        assert refused.status_code == 409
        assert "scope admin" in refused.json()["error"]["message"]
        assert await passes(client, "sk-whatever"), "nothing was made"
        first = (await client.post("/v1/keys", json={"name": "it", "scopes": ["admin"]})).json()
        assert "needs a key" in await refusal(client, None)
        assert await passes(client, first["key"])
        gone = await client.delete(f"/v1/keys/{first['id']}", headers=bearer(first["key"]))
        assert gone.json()["state"] == "revoked"
        assert "revoked" in await refusal(client, first["key"])
        assert "needs a key" in await refusal(client, None), "the last key does not open it"
    async with gateway() as client:
        assert "needs a key" in await refusal(client, None), "after a restart neither"


async def test_probes_and_the_description_need_no_key() -> None:
    async with gateway(admin_key=ADMIN) as client:
        for path in ("/healthz", "/metrics", "/openapi.json", "/docs"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("header", ["X-Api-Key", "api-key"])
async def test_a_key_may_come_in_another_header(header: str) -> None:
    async with gateway(admin_key=ADMIN) as client:
        key = (await made(client))["key"]
        reply = await client.post("/v1/search", json=SEARCH, headers={header: key})
        assert reply.status_code == 422
        both = {header: ADMIN, "Authorization": f"Bearer {key}"}
        reply = await client.post("/v1/search", json=SEARCH, headers=both)
        assert reply.json()["error"]["message"] == "The request has several keys; send one."
        twice = [(header, ADMIN), (header, key)]
        for sent in (twice, twice[::-1]):
            reply = await client.post("/v1/search", json=SEARCH, headers=sent)
            assert reply.json()["error"]["message"] == "The request has several keys; send one."


async def test_wrong_keys_are_refused_and_never_repeated() -> None:
    async with gateway(admin_key=ADMIN) as client:
        key = (await made(client))["key"]
        assert len(key) == api_key.KEY_CHARS
        assert "damaged: it has 40 characters" in await refusal(client, key[:40])
        other = key[:-1] + ("0" if key[-1] != "0" else "1")
        assert await refusal(client, other) == "There is no such key."
        unknown = "rgl_" + "0" * 12 + "_" + "1" * 64
        assert await refusal(client, unknown) == "There is no such key."
        assert "begin with rgl_" in await refusal(client, ADMIN[:-1] + "0")
        basic = await client.get("/v1/collections", headers={"Authorization": f"Basic {key}"})
        assert basic.status_code == 401
        assert await passes(client, key)


@pytest.mark.parametrize("query", ["api_key={0}", "token={0}", "q={0}", "q=%72{1}", "Key={0}"])
@pytest.mark.parametrize("options", [{}, {"admin_key": ADMIN}], ids=["open", "keys"])
async def test_a_key_in_the_query_string_is_refused_and_not_logged(
    query: str, options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    key = "rgl_" + "0" * 12 + "_" + "ab" * 32
    async with gateway(**options) as client:
        path = "/v1/collections?" + query.format(key, key[1:])
        reply = await client.get(path, headers=bearer(ADMIN))
        assert reply.status_code == 401
        assert "Authorization: Bearer" in reply.json()["error"]["message"]
        assert key not in reply.text
    printed = capsys.readouterr()
    assert "ab" * 32 not in printed.out + printed.err


async def test_scopes_and_unknown_routes() -> None:
    async with gateway(admin_key=ADMIN) as client:
        query = bearer((await made(client, scopes=["query"]))["key"])
        ingest = bearer((await made(client, scopes=["ingest"]))["key"])
        for method, path, headers in (
            ("DELETE", "/v1/collections/a", query),
            ("POST", "/v1/search", ingest),
            ("GET", "/v1/keys", query),
            ("GET", "/v1/audit", ingest),
            ("GET", "/v1/status", ingest),
            ("GET", "/nothing", query),
        ):
            reply = await client.request(method, path, headers=headers)
            assert reply.status_code == 403, (method, path)
            assert "needs the scope" in reply.json()["error"]["message"]
        assert (await client.get("/nothing", headers=bearer(ADMIN))).status_code == 404


async def test_a_rotated_key_has_two_secrets_for_a_while() -> None:
    async with gateway(admin_key=ADMIN) as client:
        key = await made(client)
        path = f"/v1/keys/{key['id']}/rotate"
        second = (await client.post(path, headers=bearer(ADMIN))).json()
        assert second["id"] == key["id"]
        assert second["former_until"] is not None
        assert await passes(client, key["key"])
        assert await passes(client, second["key"])
        third = (await client.post(path, json={"overlap_s": 0}, headers=bearer(ADMIN))).json()
        assert "no such key" in await refusal(client, key["key"])
        assert "rotated" in await refusal(client, second["key"])
        assert await passes(client, third["key"])


async def test_what_a_key_may_give_away() -> None:
    async with gateway(admin_key=ADMIN) as client:
        own = (await made(client, scopes=["admin"], tenant="acme", collections=["a"]))["key"]
        for body, named in (
            ({"tenant": "other", "collections": ["a"]}, "own tenant"),
            ({"collections": ["a", "b"]}, "'b'"),
            ({}, "all collections"),
        ):
            reply = await client.post("/v1/keys", json={"name": "x"} | body, headers=bearer(own))
            assert reply.status_code == 403
            assert named in reply.json()["error"]["message"]
        mine = await made(client, own, collections=["a"])
        assert mine["tenant"] == "acme"
        others = await made(client)
        listed = (await client.get("/v1/keys", headers=bearer(own))).json()["keys"]
        assert {key["tenant"] for key in listed} == {"acme"}
        path = f"/v1/keys/{others['id']}"
        assert (await client.delete(path, headers=bearer(own))).status_code == 404
        refused = await client.get("/v1/audit", headers=bearer(own))
        assert refused.status_code == 403
        assert "cover all collections" in refused.json()["error"]["message"]
        all_of_it = (await made(client, scopes=["admin"], tenant="acme"))["key"]
        entries = (await client.get("/v1/audit", headers=bearer(all_of_it))).json()["entries"]
        assert {entry["tenant"] for entry in entries} == {"acme"}


async def test_a_key_with_collections_reaches_no_key_that_allows_more() -> None:
    async with gateway(admin_key=ADMIN) as client:
        limited = bearer((await made(client, scopes=["admin"], collections=["a", "b"]))["key"])
        within = await made(client, collections=["a"])
        beyond = [
            await made(client, scopes=["admin"]),
            await made(client, collections=["a", "c"]),
            await made(client, collections=["a"], tenant="acme"),
        ]
        for each in beyond:
            path = f"/v1/keys/{each['id']}"
            for method, of in (("GET", ""), ("POST", "/rotate"), ("DELETE", "")):
                reply = await client.request(method, path + of, headers=limited)
                assert reply.status_code == 404, (method, each)
            assert await passes(client, each["key"])
        listed = (await client.get("/v1/keys", headers=limited)).json()["keys"]
        for path in ("/v1/traces", "/v1/traces/" + "0" * 32):
            reply = await client.get(path, headers=limited)
            assert reply.status_code == 403, "they show documents of all collections"
        ids = {key["id"] for key in listed}
        assert within["id"] in ids
        assert ids.isdisjoint(each["id"] for each in beyond)
        path = f"/v1/keys/{within['id']}/rotate"
        assert (await client.post(path, headers=limited)).status_code == 200
        body = {"name": "x", "tenant": "acme", "collections": ["a"]}
        reply = await client.post("/v1/keys", json=body, headers=limited)
        assert reply.status_code == 403, "acme's collection of the same name is another one"


async def test_a_key_makes_and_sees_no_key_that_reaches_more_documents() -> None:
    async with gateway(admin_key=ADMIN) as client:
        everything = await made(client, scopes=["admin"])
        hr = await made(client, everything["key"], scopes=["admin"], access=["hr", "legal"])
        assert hr["access"] == ["hr", "legal"]
        own = await made(client, hr["key"], access=["hr"])
        reader = await made(client, hr["key"])  # open documents
        assert (own["access"], reader["access"]) == (["hr"], None)
        for body in ({"access": ["board"]}, {"access": ["*"]}, {"scopes": ["admin"]}):
            json = {"name": "it"} | body
            refused = await client.post("/v1/keys", json=json, headers=bearer(hr["key"]))
            assert refused.status_code == 403, body
        seen = (await client.get("/v1/keys", headers=bearer(hr["key"]))).json()["keys"]
        assert {each["id"] for each in seen} == {hr["id"], own["id"], reader["id"]}
        path = f"/v1/keys/{everything['id']}/rotate"
        assert (await client.post(path, headers=bearer(hr["key"]))).status_code == 404
        for wrong in (["a b"], ["x" * 65], [f"t{n}" for n in range(65)]):
            json = {"name": "it", "access": wrong}
            assert (
                await client.post("/v1/keys", json=json, headers=bearer(ADMIN))
            ).status_code == 422


async def test_a_collection_that_the_key_does_not_name_is_refused() -> None:
    async with gateway(admin_key=ADMIN) as client:
        headers = bearer((await made(client, scopes=["query", "ingest"], collections=["a"]))["key"])
        documents = {"documents": [{"id": "1", "text": "x"}]}
        for method, path, body in (
            ("POST", "/v1/search", {"query": "x", "collections": ["a", "b"]}),
            ("POST", "/v1/query", {"query": "x"}),
            ("GET", "/v1/collections/b", None),
            ("POST", "/v1/collections/b/documents", documents),
            ("DELETE", "/v1/collections/b/documents/1", None),
            ("GET", "/v1/jobs?collection=b", None),
        ):
            reply = await client.request(method, path, json=body, headers=headers)
            assert reply.status_code == 403, (method, path, reply.text)
            assert "does not allow the collection" in reply.json()["error"]["message"]
        file = {"files": ("x.txt", b"x")}
        reply = await client.post("/v1/chunks?collection=b", files=file, headers=headers)
        assert reply.status_code == 403, "how it is cut is a setting of the collection"
        reply = await client.get("/v1/collections/a", headers=headers)
        assert reply.status_code == 503, "allowed, and nothing runs behind"


async def test_a_key_with_collections_sees_the_files_that_it_uploaded(tmp_path: Path) -> None:
    async with gateway(admin_key=ADMIN, data_dir=tmp_path) as client:
        keys = [
            bearer((await made(client, scopes=["ingest"], collections=collections))["key"])
            for collections in (["a"], ["a"], None)
        ]
        ids = []
        for key in keys:
            upload = {"file": ("x.txt", b"secret")}
            purpose = {"purpose": "assistants"}
            reply = await client.post("/v1/files", files=upload, data=purpose, headers=key)
            ids.append(reply.json()["id"])
        for key, visible in zip(keys, [ids[:1], ids[1:2], ids], strict=True):
            listed = (await client.get("/v1/files", headers=key)).json()["data"]
            assert {file["id"] for file in listed} == set(visible)
            for id_ in ids:
                for method, of in (("GET", ""), ("GET", "/content")):
                    reply = await client.request(method, f"/v1/files/{id_}{of}", headers=key)
                    assert reply.status_code == (200 if id_ in visible else 404)
        others = await client.delete(f"/v1/files/{ids[2]}", headers=keys[0])
        assert others.status_code == 404
        assert (await client.delete(f"/v1/files/{ids[0]}", headers=keys[0])).status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": " "}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "scopes": ["query", "query"]}, "scopes"),
        ({"name": "x", "collections": []}, "collections"),
        ({"name": "x", "tenant": "a/b"}, "tenant"),
        ({"name": "x", "expires_in_s": 0}, "expires_in_s"),
        ({"name": "x", "limits": {"requests": 1}}, "limits"),
        ({"name": "x", "key": "chosen"}, "key"),
    ],
)
async def test_a_key_that_cannot_be_made(body: dict[str, Any], named: str) -> None:
    async with gateway(admin_key=ADMIN) as client:
        reply = await client.post("/v1/keys", json=body, headers=bearer(ADMIN))
        assert reply.status_code == 422
        assert named in reply.json()["error"]["message"]
        assert (await client.get("/v1/keys", headers=bearer(ADMIN))).json()["keys"] == []


async def test_pages_of_keys_and_of_the_audit_log() -> None:
    async with gateway(admin_key=ADMIN) as client:
        ids = sorted([(await made(client))["id"] for _ in range(3)])
        page = (await client.get("/v1/keys?limit=2", headers=bearer(ADMIN))).json()
        assert [key["id"] for key in page["keys"]] == ids[:2]
        assert all("key" not in key for key in page["keys"])
        path = f"/v1/keys?after={page['next_after']}"
        assert (await client.get(path, headers=bearer(ADMIN))).json()["next_after"] is None
        await client.delete(f"/v1/keys/{ids[0]}", headers=bearer(ADMIN) | {"X-Request-ID": "r-1"})
        newest = (await client.get("/v1/audit?limit=1", headers=bearer(ADMIN))).json()
        entry = newest["entries"][0]
        shown = [entry[name] for name in ("action", "resource", "caller", "request_id")]
        assert shown == ["key.revoke", ids[0], "admin", "r-1"]
        path = f"/v1/audit?before={newest['next_before']}"
        rest = (await client.get(path, headers=bearer(ADMIN))).json()
        assert [each["action"] for each in rest["entries"]] == ["key.create"] * 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
async def test_without_keys_it_does_not_start_on_another_address(host: str) -> None:
    with pytest.raises(Forbidden, match="RAGLAN_GATEWAY_ADMIN_KEY_FILE.*ANONYMOUS=allow"):
        async with gateway(host=host):
            pass
    async with gateway(host=host, anonymous="allow") as client:
        assert await passes(client, "none")
    async with gateway(host=host, admin_key=ADMIN) as client:
        assert "needs a key" in await refusal(client, None)
        await made(client)
    async with gateway(host=host) as client:
        assert "needs a key" in await refusal(client, None)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ADMIN_KEY": "short-secret"}, "32"),
        ({"ADMIN_KEY": "rgl_" + ADMIN}, "begins with rgl_"),
        ({"OIDC_ISSUER": "https://a"}, "OIDC_AUDIENCE"),
        ({"OIDC_ISSUER": "i", "OIDC_AUDIENCE": "a", "OIDC_JWKS_URL": "http://10.0.0.1/k"}, "https"),
        (
            {
                "OIDC_ISSUER": "i",
                "OIDC_AUDIENCE": "a",
                "OIDC_JWKS_URL": "https://a/k",
                "OIDC_ALGORITHMS": "RS256,HS256",
            },
            "HS256",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"RAGLAN_GATEWAY_{name}", value)
    with pytest.raises((SettingsError, ValidationError), match=named) as caught:
        load(GatewaySettings)
    assert "short-secret" not in str(caught.value)
    assert ADMIN not in str(caught.value)


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="RAGLAN_GATEWAY_DATA_DIR"):
        async with gateway(data_dir=tmp_path / "file" / "data"):
            pass
