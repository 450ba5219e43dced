"""The examples of the REST reference: each request works, each reply has the form that is shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import mesh_process
from jsonschema import Draft202012Validator
from raglan_gateway.api.openai.documented import TAG

ADMIN = "0123456789abcdef0123456789abcdef"
EXAMPLES = Path(__file__).parents[2] / "docs" / "rest_examples.json"


def send(client: httpx.Client, example: dict[str, Any], known: dict[str, str]) -> httpx.Response:
    """Send an example; `known` holds ids that earlier replies gave, and gets those of this one."""
    path = example["path"].format(**known)
    if path.startswith("/v1/jobs/") and not path.endswith("/events"):
        mesh_process.finished(client, known["job_id"])
    files = [("files", (name, text.encode())) for name, text in example.get("files", {}).items()]
    body = {"files": files} if files else {"json": example.get("body")}
    reply = client.request(example["method"], path, **body)
    if reply.headers["content-type"] == "application/json" and isinstance(reply.json(), dict):
        known |= {key: reply.json()[key] for key in ("job_id", "trace_id") if key in reply.json()}
        if example["operation"] == "create_key":
            known["key_id"] = reply.json()["id"]
    if path == "/v1/query" and reply.headers["content-type"] == "application/json":
        known["query_id"] = reply.json()["id"]
    return reply


def content(reply: httpx.Response) -> Any:
    """JSON, the events of a stream, or text."""
    kind = reply.headers["content-type"].partition(";")[0]
    if kind == "text/event-stream":
        return mesh_process.events(reply)
    return reply.json() if kind == "application/json" else reply.text


async def test_every_example_of_the_rest_reference(client: httpx.Client, tmp_path: Path) -> None:
    # The first key would close the shared mesh to the other tests.
    options = {"admin_key": ADMIN, "data_dir": tmp_path}
    async with gateway_serving.serving(**options) as (gateway, _):
        sent = {"Authorization": f"Bearer {ADMIN}"}
        with httpx.Client(base_url=gateway.url, headers=sent) as keys:
            await asyncio.to_thread(check, client, keys)


def check(client: httpx.Client, keys: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operations = {
        operation["operationId"]: operation["responses"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if TAG not in operation["tags"]
    }
    examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    assert {each["operation"] for each in examples} == set(operations)
    known: dict[str, str] = {}
    for example in examples:
        own = example["path"].startswith(("/v1/keys", "/v1/audit"))
        reply = send(keys if own else client, example, known)
        shown, given = example["reply"], content(reply)
        assert reply.status_code == example["status"], (example, reply.text)
        kind = reply.headers["content-type"].partition(";")[0]
        if kind == "application/json":
            responses = operations[example["operation"]]
            schema = responses[str(reply.status_code)]["content"][kind]["schema"]
            validator = Draft202012Validator({**schema, "components": document["components"]})
            assert list(validator.iter_errors(given)) == []
            assert list(validator.iter_errors(shown)) == [], example
            first, second = (each if isinstance(each, dict) else each[0] for each in (shown, given))
            assert set(first) == set(second), example
        elif kind == "text/event-stream":
            assert {name for name, _ in shown} == {name for name, _ in given}, example
