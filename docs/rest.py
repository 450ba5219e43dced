"""Prints docs/rest.md from the OpenAPI document and docs/rest_examples.json: `make docs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raglan_gateway.api.openai.documented import TAG
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

HEAD = """# REST reference

<!-- Written by `make docs` from the gateway's OpenAPI document. Change that, not this page. -->

Every call of the gateway's own API, with an example; those that clients of OpenAI, Cohere and Jina
know are in [OpenAI-compatible API](api/openai.md). A running gateway serves the OpenAPI document at
`/openapi.json`, and at `/docs` a page to try it out. Bodies and replies are JSON in UTF-8. In the
examples, lists of a reply are cut to one element.

| header | of | meaning |
|---|---|---|
| `X-Request-ID` | request, reply | id of the request in every log line; generated if absent |
| `traceparent` | request, reply | W3C trace context; `GET /v1/traces/{trace_id}` shows the trace |
| `X-Raglan-Priority` | request | `critical`, `default` or `batch`: served first, or shed first |
| `Retry-After` | reply | seconds to wait before a request is sent again after 429 or 503 |

## Errors

Every error has the same form; [a collection that does not exist](#get-v1collectionsname) is an
example. `retryable` says whether the same request may succeed later.

| status | meaning |
|---|---|
| 400, 422 | the request is malformed, or a value is outside of its limits |
| 401 | there is no key, or it is wrong, expired, revoked: see [keys](api/keys.md) |
| 403 | the key lacks the scope or the collection; a web page of another origin sent it |
| 404, 405 | the collection, document, job, trace or route does not exist; the method is wrong |
| 408, 413, 415 | the body arrives too slowly, is too large, or has an unknown media type |
| 409 | it contradicts what exists, such as vectors of another model |
| 429 | the rate limit is used up, or a queue is full |
| 500, 501 | an internal error: report it with `request_id`; or not supported by the engine |
| 503, 504 | a service is down or starting; the deadline has passed |
"""
_METHODS = ("get", "post", "put", "patch", "delete")


def main() -> None:
    """Print the page."""
    document = asyncio.run(_document())
    schemas = document["components"]["schemas"]
    examples: dict[str, list[dict[str, Any]]] = {}
    path = Path(__file__).with_name("rest_examples.json")
    for example in json.loads(path.read_text(encoding="utf-8")):
        examples.setdefault(example["operation"], []).append(example)
    print(HEAD, end="")
    tag = None
    for route, methods in document["paths"].items():
        for method in _METHODS:
            if (operation := methods.get(method)) is None or TAG in operation["tags"]:
                continue
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                print(f"\n## {tag.capitalize()}")
            print(f"\n### {method.upper()} {route}\n\n{_sentence(operation['description'])}")
            _print_parameters(operation)
            _print_body(operation, schemas)
            for example in examples[operation["operationId"]]:
                _print_example(example)
    print("\n## Objects\n\nOf replies, the fields that the examples do not explain.")
    for name, schema in sorted(_objects(schemas)):
        print(f"\n### {name}\n\n{_sentence(schema.get('description', ''))}\n")
        print("| field | type | meaning |\n|---|---|---|")
        of_body = schema.get("additionalProperties") is False
        for field, value in schema["properties"].items():
            if of_body or "description" in value:
                print(f"| `{field}` | {_type(value)} | {_sentence(value.get('description', ''))} |")


async def _document() -> dict[str, Any]:
    return build(GatewaySettings()).openapi()


def _print_parameters(operation: dict[str, Any]) -> None:
    if rows := operation.get("parameters"):
        print("\n| parameter | in | type | default | meaning |\n|---|---|---|---|---|")
    for each in rows or ():
        value = each["schema"]
        meaning = _sentence(each.get("description", value.get("description", "")))
        print(
            f"| `{each['name']}` | {each['in']} | {_type(value)} | {_default(value)} | {meaning} |"
        )


def _print_body(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        print(f"\nBody, `{media_type}`:\n\n| field | type | default | meaning |\n|---|---|---|---|")
        for field, value in schema["properties"].items():
            required = "required" if field in schema.get("required", ()) else _default(value)
            meaning = _sentence(value.get("description", ""))
            print(f"| `{field}` | {_type(value)} | {required} | {meaning} |")


def _print_example(example: dict[str, Any]) -> None:
    url = f"localhost:8080{example['path']}"
    command = f"curl {url}" if example["method"] == "GET" else f"curl -X {example['method']} {url}"
    if "?" in url or "{" in url:
        command = command.replace(url, f"'{url}'")
    if "body" in example:
        body = json.dumps(example["body"], ensure_ascii=False)
        command += f" -H 'content-type: application/json' \\\n  -d '{body}'"
    for name in example.get("files", {}):
        command += f" \\\n  -F files=@{name}"
    print(f"\n```sh\n{command}\n```\n\nReply, {example['status']}:\n")
    reply = example["reply"]
    if isinstance(reply, str):
        print(f"```\n{reply}```")
    elif example.get("body", {}).get("stream") or example["path"].endswith("/events"):
        lines = [
            f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}" for name, data in reply
        ]
        print("```\n" + "\n\n".join(lines) + "\n```")
    else:
        print(f"```json\n{json.dumps(reply, indent=2, ensure_ascii=False)}\n```")


def _objects(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects inside of bodies, and those of replies whose fields have descriptions."""
    bodies = {"SearchRequest", "QueryRequest", "NewCollection", "NewDocuments", "QueryOptions"}
    bodies |= {"DocumentDeletion", "DocumentTagging", "DocumentUpdate"}
    for name, schema in schemas.items():
        fields = schema.get("properties", {}).values()
        strict = schema.get("additionalProperties") is False
        if name not in bodies and (strict or any("description" in each for each in fields)):
            yield name, schema


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema as a reader of the page would say it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"`{name}`"
    if alternatives := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(dict.fromkeys(_type(each) for each in alternatives))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}{_bounds(schema, 'Items', ' elements')}"
    return f"{schema.get('type', 'any')}{_bounds(schema, 'Length', ' characters')}"


def _bounds(schema: dict[str, Any], what: str, unit: str) -> str:
    """The least and the most of a number, or of a length, in brackets."""
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if least is most is None:
        least, most, unit = schema.get("minimum"), schema.get("maximum"), ""
    if least is most is None:
        return ""
    numbers = [f"{each:,.0f}" for each in (least, most) if each is not None]
    sign = ">= " if most is None else "<= " if least is None else ""
    return f" ({sign}{' to '.join(numbers)}{unit})"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return f"`{json.dumps(default)}`" if default not in (None, "", {}) else ""


def _sentence(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
