"""Settings of a service: one frozen class each, read from `RAGLAN_<SERVICE>_<FIELD>`.

A variable that no field reads is refused by name, because a misspelt setting that is silently
ignored costs an evening.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableValue

from raglan import fault_plan, tls_files
from raglan.telemetry import variables as trace_variables

SERVICES: Final = (
    *("gateway", "embedder", "retriever", "reranker", "generator", "ingester", "tracer"),
)
"""Every service that reads variables of its own. Their prefixes are left to them."""

CLI_VARIABLES: Final = frozenset(
    {
        *("RAGLAN_URL", "RAGLAN_API_KEY", "RAGLAN_API_KEY_FILE", "RAGLAN_DATA"),
        *("RAGLAN_HISTORY", "RAGLAN_HISTORY_DAYS", "RAGLAN_LOG_MAX_MB"),
    }
)
"""Variables of the command line: the gateway's address and the key to it, the data folder of
`raglan up`, the size limit of its logs, and the file in which runs of `raglan eval` are kept, and
for how long."""

RENAMED: Final[Mapping[str, str]] = {
    f"RAGLAN_GATEWAY_{name}": f"RAGLAN_TRACER_{name}"
    for name in (
        *("TRACES_KEPT", "TRACES_SHARE", "TRACES_MAX_BYTES", "TRACE_MAX_SPANS"),
        *("OTLP_HOST", "OTLP_PORT"),
    )
}
"""Former name of a variable -> its name. The former one is still read where the other is unset."""

_MAX_SECRET_BYTES: Final = 64 * 1024

COMMON_VARIABLES: Final = frozenset({fault_plan.VARIABLE, *tls_files.OWN, *trace_variables.OWN})
"""Variables that every service reads under one name."""


def _addresses(value: str) -> str:
    # Imported late: the command line reads settings and resolves no names.
    from raglan.rpc.addresses import Addresses

    if value:
        Addresses.parse(value)
    return value


def _http_url(value: str) -> str:
    try:
        url = urlsplit(value)
        # Read, because a port that is no number shows only then.
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("it is no URL; write http://host:port or https://host:port")
    return value


AddressList = Annotated[str, AfterValidator(_addresses)]
"""Addresses as `raglan.rpc.addresses` reads them; empty for none."""

HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""Base URL of a server."""


class SettingsError(Exception):
    """The environment holds something a service cannot start with; the text says what to change."""


class ServiceSettings(BaseSettings):
    """Settings that every service has."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default; in a container, 0.0.0.0."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are logged."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """One JSON line an event, or coloured text; auto means text in a terminal."""

    shutdown_drain_s: NonNegativeFloat = 0.2
    """Seconds between saying NOT_SERVING and refusing calls. Behind a load balancer: 5."""

    shutdown_grace_s: NonNegativeFloat = 10
    """Seconds that running calls get to finish after that."""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any, info: ValidationInfo) -> Any:
        """Take an empty variable for none where none is the default."""
        unset = value == "" and cls.model_fields[info.field_name or ""].default is None
        return None if unset else value


class GrpcSettings(ServiceSettings):
    """Further settings of every service that listens for gRPC."""

    reflection: bool = False
    """Enable gRPC server reflection (for grpcurl)."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port for `/metrics`, on the same host; 0 takes a free one, which `raglan status` shows."""

    max_calls: PositiveInt = 4_096
    """Calls served at the same time, waiting ones included; past it they are refused at once."""

    max_unread_calls: PositiveInt = 1_024
    """Calls of one method that have arrived and were not read yet; past it they are refused before
    they cost anything."""

    max_message_bytes: PositiveInt = 16 * 1024 * 1024
    """Largest gRPC message received or sent."""


S = TypeVar("S", bound=ServiceSettings)


def listed(value: str) -> list[str]:
    """The parts of a setting that is a list with commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def default_data_dir() -> Path:
    """Return the default data folder: `$RAGLAN_DATA`, else `~/.local/share/raglan`.

    Raises:
        SettingsError: neither is known, as in a container whose user has no name.
    """
    if told := os.environ.get("RAGLAN_DATA"):
        return Path(told)
    try:
        return Path.home() / ".local" / "share" / "raglan"
    except RuntimeError:
        raise SettingsError(
            f"User {os.getuid()} has no home folder, so there is no place for data; set "
            "RAGLAN_DATA (or HOME)."
        ) from None


def variables_of(settings: type[ServiceSettings]) -> dict[str, str]:
    """Environment variable -> field, for every field of `settings`."""
    prefix = settings.model_config.get("env_prefix", "")
    return {f"{prefix}{field}".upper(): field for field in settings.model_fields}


def is_secret(field: FieldInfo) -> bool:
    """Return whether the value must not be shown, and may be given as a file."""
    annotation = field.annotation
    return SecretStr in (annotation, *get_args(annotation))


def secret_files_of(settings: type[ServiceSettings]) -> dict[str, str]:
    """Variable that names a file -> field, for every secret of `settings`."""
    fields = settings.model_fields
    return {
        f"{variable}_FILE": name
        for variable, name in variables_of(settings).items()
        if is_secret(fields[name])
    }


def read_secret(variable: str, path: Path) -> SecretStr:
    """Read the secret in the file at `path`, without the line break at its end.

    Raises:
        SettingsError: it cannot be read, or is no secret; the text names `variable`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is no text in UTF-8.") from None
    if not secret:
        raise SettingsError(f"{variable}: {path} is empty; write the secret into it.")
    if len(content) > _MAX_SECRET_BYTES:
        raise SettingsError(
            f"{variable}: {path} holds more than {_MAX_SECRET_BYTES} bytes; is it the right file?"
        )
    return SecretStr(secret)


def _secrets_from_files(
    settings: type[ServiceSettings], environ: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    """Field -> secret, for those that are given as a file; what is wrong goes to `problems`."""
    found: dict[str, Any] = {}
    for variable, field in secret_files_of(settings).items():
        if not (path := environ.get(variable, "")):
            continue
        if environ.get(direct := variable.removesuffix("_FILE")):
            problems.append(f"{direct} and {variable} are both set; keep one.")
            continue
        try:
            found[field] = read_secret(variable, Path(path))
        except SettingsError as error:
            problems.append(str(error))
    return found


def unknown_variables(
    known: Iterable[str], *, prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Variable that nothing reads, under `prefix` or no service's prefix -> nearest known one."""
    names = set(known) | CLI_VARIABLES | COMMON_VARIABLES | RENAMED.keys()
    foreign = tuple(
        f"RAGLAN_{service.upper()}_"
        for service in SERVICES
        if not prefix.startswith(f"RAGLAN_{service.upper()}")
    )
    unknown = [
        name
        for name in environ
        if name.startswith("RAGLAN_") and not name.startswith(foreign) and name not in names
    ]
    return {name: next(iter(difflib.get_close_matches(name, names, 1)), "") for name in unknown}


def load(settings: type[S]) -> S:
    """Read `settings` from the environment.

    Raises:
        SettingsError: a variable that nothing reads, or a value that its field refuses.
    """
    variables = variables_of(settings)
    unknown = unknown_variables(
        {*variables, *secret_files_of(settings)},
        prefix=settings.model_config.get("env_prefix", ""),
        environ=os.environ,
    )
    problems = [
        f"{name} is set, but there is no such setting." + (f" Did you mean {near}?" if near else "")
        for name, near in sorted(unknown.items())
    ]
    if wrong := fault_plan.problem(os.environ, SERVICES):
        problems.append(wrong)
    if wrong := tls_files.problem(os.environ):
        problems.append(wrong)
    if wrong := trace_variables.problem(os.environ):
        problems.append(wrong)
    names = {field: variable for variable, field in variables.items()}
    secrets = _secrets_from_files(settings, os.environ, problems)
    renamed: dict[str, Any] = {
        variables[name]: os.environ[former]
        for former, name in RENAMED.items()
        if name in variables and former in os.environ and name not in os.environ
    }
    try:
        loaded = settings(**renamed, **secrets)
    except ValidationError as error:
        problems += [_problem(settings, names, e) for e in error.errors(include_url=False)]
        raise SettingsError("\n".join(problems)) from None
    except UnreadableValue:
        problems += _not_json(settings, variables)
        raise SettingsError("\n".join(problems)) from None
    if problems:
        raise SettingsError("\n".join(problems))
    return loaded


def _problem(settings: type[ServiceSettings], names: Mapping[str, str], error: ErrorDetails) -> str:
    location = error["loc"]
    # An error of no single field has all of them as its input, secrets included.
    if not location:
        return f"{_sentence(error)}."
    said = f"{_place(location, names)}: {_sentence(error)}"
    field = settings.model_fields.get(str(location[0]))
    if field is None or is_secret(field):
        return f"{said}."
    return f"{said} (got {error['input']!r})."


def _sentence(error: ErrorDetails) -> str:
    """The message as the validator raised it."""
    return error["msg"].removeprefix("Value error, ")


def _not_json(settings: type[ServiceSettings], variables: Mapping[str, str]) -> list[str]:
    """Sentences on the variables that are to be JSON and are not."""
    found = []
    for variable, field in variables.items():
        if settings.model_fields[field].default_factory is not dict or variable not in os.environ:
            continue
        try:
            json.loads(os.environ[variable])
        except ValueError as error:
            found.append(f"{variable} is not JSON: {error} (got {os.environ[variable]!r}).")
    return found


def _place(location: Sequence[int | str], names: Mapping[str, str]) -> str:
    """The variable, and where in its JSON."""
    field, *inside = map(str, location)
    return ": ".join([names.get(field, field), *([".".join(inside)] if inside else [])])


def load_or_exit(settings: type[S]) -> S:
    """Like `load`, but a problem ends the process with status 2 and the sentence on stderr."""
    try:
        return load(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
