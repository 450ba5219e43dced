"""Settings classes as the deployment files are compared with them: Compose, the chart, the plan.

What a service needs is said once, in its settings class. Each function here takes a service by name
and derives one requirement from that class.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from raglan.settings import (
    COMMON_VARIABLES,
    SERVICES,
    GrpcSettings,
    ServiceSettings,
    load,
    secret_files_of,
    variables_of,
)
from raglan.tls_files import FILES as TLS_FILES

__all__ = ["METRICS_PORT", "SERVICES", "SettingsProblem", "accepted", "called_services",
           "data_folders", "metrics_port", "port", "settings_of", "unknown_names"]  # fmt: skip

METRICS_PORT: Final = 9100
"""Port of `/metrics` of every service but the gateway, in every deployment."""

FOREIGN_VARIABLES: Final = frozenset(
    {"HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HOME", "OTEL_SDK_DISABLED", "RAGLAN_DATA",
     "SSL_CERT_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
     "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "NVIDIA_VISIBLE_DEVICES",
     "TORCHINDUCTOR_CACHE_DIR"}
)  # fmt: skip
"""Variables that libraries, or every service under one name, read: not fields of a class."""


class SettingsProblem(AssertionError):
    """A service would refuse its environment; the text is the sentence it prints."""


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings class of a service."""
    module = importlib.import_module(f"raglan_{service}.settings")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def port(service: str) -> int:
    """The port that the service listens on by default."""
    default = settings_of(service).model_fields["port"].default
    assert isinstance(default, int)
    return default


def metrics_port(service: str) -> int:
    """The port of `/metrics` in a deployment: the gateway serves it beside its API."""
    return METRICS_PORT if issubclass(settings_of(service), GrpcSettings) else port(service)


def called_services(service: str) -> dict[str, str]:
    """Variable with an address -> the service that is called there.

    Every one of them has to be set in a deployment, because the defaults are on loopback.
    """
    names = variables_of(settings_of(service))
    return {
        variable: field.removesuffix("_address")
        for variable, field in names.items()
        if field.removesuffix("_address") in SERVICES
    }


def data_folders(settings: ServiceSettings) -> dict[str, Path]:
    """Field -> folder that the service writes to; each has to lie on a volume."""
    return {
        name: value
        for name, value in settings
        if isinstance(value, Path) and name in ("data_dir", "cache_dir")
    }


def unknown_names(service: str, environment: Mapping[str, str]) -> set[str]:
    """Variables of `environment` that the service does not read."""
    settings = settings_of(service)
    read = {*variables_of(settings), *secret_files_of(settings), *COMMON_VARIABLES}
    return set(environment) - read - FOREIGN_VARIABLES


def accepted(service: str, environment: Mapping[str, str], *, folder: Path) -> ServiceSettings:
    """The settings that the service loads from `environment` alone.

    Args:
        service: by name.
        environment: all of it, as in a container.
        folder: for stand-ins of secret files, which exist only where they are mounted.

    Raises:
        SettingsProblem: the service would end with status 2.
    """
    settings = settings_of(service)
    local = dict(environment)
    for variable in {*secret_files_of(settings), *TLS_FILES} & environment.keys():
        if environment[variable] and variable not in TLS_FILES:
            stand_in = folder / variable.lower()
            stand_in.write_text("a stand-in, as long as the longest needs\n".replace(" ", "-"))
            local[variable] = str(stand_in)
        else:
            del local[variable]
    with _environment(local):
        try:
            return load(settings)
        except Exception as error:
            raise SettingsProblem(f"{service}: {error}") from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
