"""Prints docs/configuration.md from the settings classes: `make docs`."""

from __future__ import annotations

import importlib
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from raglan.settings import SERVICES, GrpcSettings, ServiceSettings

HEAD = """# Configuration

<!-- Written by `make docs` from the settings classes. Change those, not this page. -->

Every setting is an environment variable, `RAGLAN_<SERVICE>_<FIELD>`. `raglan up` passes the
variables of its own environment on to the services it starts. A variable that no service knows is
refused at start, with the nearest name that exists.

Five variables belong to the command line: `RAGLAN_URL` is the gateway that the client commands talk
to, `RAGLAN_DATA` the data folder of `raglan up`, `RAGLAN_LOG_MAX_MB` the megabytes that a log in it
may have before it is rotated (50; two older files are kept; 0 is no limit), `RAGLAN_HISTORY` the
file in which runs of `raglan eval` are kept, `RAGLAN_HISTORY_DAYS` for how many days (30)
([performance records](observability.md#performance-records)). `RAGLAN_FAULTS` makes calls between
services fail for a [rehearsal](resilience.md#rehearsing).

Each `secret` may be given as a file instead: `RAGLAN_GENERATOR_API_KEY_FILE=/run/secrets/llm`
stands for `RAGLAN_GENERATOR_API_KEY`. The file is read at start; a line break at its end is no part
of it.

`RAGLAN_TLS_CERT`, `RAGLAN_TLS_KEY` and `RAGLAN_TLS_CA` (PEM files) make every call between services
[mutual TLS](security.md#tls-between-services); `RAGLAN_TLS_DOMAIN` follows the services' names in
certificates. `SSL_CERT_FILE` names the authorities that every HTTP client of the services and of
the command line trusts.

`RAGLAN_TRACE_CONTENT=1` lets spans carry queries, passages and answers; by default they hold none.
`RAGLAN_TRACE_SPANS` (20000) is how many of its newest spans a process remembers, a kilobyte each.
OpenTelemetry's own variables are read too: `OTEL_EXPORTER_OTLP_ENDPOINT`, e.g.
`http://collector:4318`, sends every span to a collector (with `OTEL_EXPORTER_OTLP_HEADERS`,
`..._TIMEOUT`, `..._COMPRESSION`, `..._CERTIFICATE`), and `OTEL_SDK_DISABLED=true` makes none;
with either, `raglan up` starts no [tracer](traces.md).
"""
TABLE = "| variable | type | default | |\n|---|---|---|---|"


def main() -> None:
    """Print the page."""
    print(HEAD)
    print("## Every service\n")
    print("Each service reads these under its own prefix, e.g. `RAGLAN_GATEWAY_LOG_LEVEL`.\n")
    print(table(ServiceSettings, "RAGLAN_<SERVICE>_", skip=set()))
    print("\nThe services behind the gateway, besides:\n")
    print(table(GrpcSettings, "RAGLAN_<SERVICE>_", skip=set(ServiceSettings.model_fields)))
    for service in SERVICES:
        settings = settings_of(service)
        print(f"\n## {service}\n\n{' '.join((settings.__doc__ or '').split())}\n")
        shared = GrpcSettings if issubclass(settings, GrpcSettings) else ServiceSettings
        skip = set(shared.model_fields) - {"port"}
        print(table(settings, str(settings.model_config.get("env_prefix")), skip=skip))


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings class of a service."""
    module = importlib.import_module(f"raglan_{service}.settings")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def table(settings: type[ServiceSettings], prefix: str, *, skip: set[str]) -> str:
    """The fields of `settings` as a Markdown table, its own before those of an engine."""
    fields = sorted(
        (item for item in settings.model_fields.items() if item[0] not in skip),
        key=lambda item: item[0] not in settings.__annotations__,
    )
    rows = [
        f"| `{prefix}{name.upper()}` | {kind(field.annotation)}{bounds(field)} "
        f"| {default(field)} | {' '.join((field.description or '').split())} |"
        for name, field in fields
    ]
    return "\n".join([TABLE, *rows])


def kind(annotation: Any) -> str:
    """A type as a reader of the page would say it."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [kind(part) for part in get_args(annotation) if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if get_origin(annotation) is dict or is_model(annotation):
        return "JSON"
    if annotation is SecretStr:
        return "secret"
    known = {"int": "integer", "float": "number", "str": "text", "bool": "true or false"}
    name = getattr(annotation, "__name__", str(annotation))
    return known.get(name, "path" if name == "Path" else name)


def is_model(annotation: Any) -> bool:
    """Whether a value has fields of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def bounds(field: FieldInfo) -> str:
    """The limits of a number."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def default(field: FieldInfo) -> str:
    """The default as it would be written in the environment."""
    if field.default_factory is dict:
        return "empty"
    if field.default_factory is not None:
        return "in the data folder"
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, SecretStr) or field.default in ("", None):
        return "empty"
    value = str(field.default)
    return f"`{value.lower() if isinstance(field.default, bool) else value}`"


if __name__ == "__main__":
    main()
