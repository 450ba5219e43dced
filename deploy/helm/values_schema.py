"""Prints the chart's values.schema.json: `make chart-schema`.

The settings that values.yaml may give are those of the settings classes, with their types and
limits, so that Helm refuses a misspelt or impossible one before a pod does.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml
from raglan.settings import SERVICES, ServiceSettings, is_secret

SOURCE: Final = Path(__file__).with_name("values.schema.yaml")

CHART_SETS: Final = frozenset(
    {
        *("host", "port", "metrics_port", "otlp_host", "otlp_port", "allowed_hosts", "listen_fd"),
        "peers_file",
        *("shutdown_drain_s", "shutdown_grace_s", "data_dir", "cache_dir"),
        *("store", "qdrant_url", "qdrant_api_key"),
        *("redis_url", "redis_password", "database_url", "database_password"),
        *("gpu_memory_utilization", "tensor_parallel_size"),
        *(f"{service}_address" for service in SERVICES),
    }
)
"""Settings that follow from other values and cannot be given under `settings`."""


def main() -> None:
    """Print the schema."""
    sys.stdout.write(f"{json.dumps(schema(), indent=1)}\n")


def schema() -> dict[str, Any]:
    """The schema of values.yaml, settings included."""
    result: dict[str, Any] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    result["properties"]["services"]["properties"] = {
        service: _service(service) for service in SERVICES
    }
    closed: dict[str, Any] = _closed(result, result["$defs"])
    return closed


def _closed(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with the properties of `$ref` beside its own where it has `extends`.

    "additionalProperties" names the property that is not allowed; "unevaluatedProperties", which
    would need no copy, names none.
    """
    if isinstance(node, list):
        return [_closed(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    node = {key: _closed(value, definitions) for key, value in node.items()}
    if name := node.pop("extends", None):
        shared = {
            key: {"$ref": f"#/$defs/{name}/properties/{key}"}
            for key in definitions[name]["properties"]
        }
        node["properties"] = {**shared, **node.get("properties", {})}
        node |= {"type": "object", "additionalProperties": False}
    return node


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings class of a service."""
    module = importlib.import_module(f"raglan_{service}.settings")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def _service(service: str) -> dict[str, Any]:
    settings = settings_of(service)
    names = {name for name in settings.model_fields if name not in CHART_SETS}
    secrets = {name for name in names if is_secret(settings.model_fields[name])}
    own: dict[str, Any] = {
        "enabled": {"type": "boolean"},
        "port": {"$ref": "#/$defs/port"},
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": _fields(settings, names - secrets),
        },
        "secrets": {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: {"$ref": "#/$defs/secretKey"} for name in sorted(secrets)},
        },
    }
    if service == "gateway":
        own["hosts"] = {"$ref": "#/$defs/words"}
    if service == "tracer":
        own["otlpPort"] = {"$ref": "#/$defs/port"}
        own["otlpFrom"] = {"$ref": "#/$defs/objects"}
    return {
        "extends": "workload",
        "required": ["enabled", "port"],
        "properties": own,
    }


def _fields(settings: type[ServiceSettings], names: set[str]) -> dict[str, Any]:
    """Field -> JSON schema; null leaves a setting at its default."""
    document = settings.model_json_schema()
    definitions = document.get("$defs", {})
    found = {}
    for name, field in document["properties"].items():
        if name in names:
            plain = {key: value for key, value in field.items() if key not in _WORDS}
            found[name] = _or_null(_inlined(plain, definitions)) | _NAMES.get(name, {})
    return found


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in field:
        return {**field, "anyOf": [*field["anyOf"], {"type": "null"}]}
    if "enum" in field:
        return {**field, "enum": [*field["enum"], None], "type": ["string", "null"]}
    return {**field, "type": [field["type"], "null"]}


_NAMES: Final = {name: {"pattern": "^[^'\\s]*$"} for name in ("model", "revision")}
"""They become words of a command of the download Job."""

_WORDS: Final = frozenset({"title", "description", "default"})


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with references replaced by what they name, without titles and defaults."""
    if isinstance(node, list):
        return [_inlined(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        return _inlined(definitions[reference.rpartition("/")[2]], definitions)
    return {
        key: _inlined(value, definitions)
        for key, value in node.items()
        if key not in ("title", "default")
    }


if __name__ == "__main__":
    main()
