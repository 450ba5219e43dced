"""Prints deploy/compose/.env.example from settings classes and Compose files: `make docs`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml
from configuration import bounds, kind, settings_of
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from raglan.settings import SERVICES, is_secret, variables_of

COMPOSE: Final = Path(__file__).parents[1] / "deploy" / "compose"
BASE: Final = "compose.yaml"

HEAD: Final = """\
# Settings of deploy/compose. ./init.sh copies this file to .env, where you change it.
# Written by `make docs` from the settings classes and the Compose files.
#
# A line that begins with # and a name shows the default; remove the # to set another value. Every
# container gets these variables, so passwords and keys are no part of them: they are files in
# secrets/."""

OWNED: Final = ("port", "data_dir", "listen_fd", "peers_file")
"""Fields that the Compose files settle without naming them: ports and folders are the defaults."""

OF_COMPOSE: Final[Mapping[str, str]] = {
    "COMPOSE_FILE": "Compose files that are started together, with colons: compose.qdrant.yaml, "
    "compose.ollama.yaml or compose.gpu.yaml, compose.sources.yaml and "
    "compose.observability.yaml go behind "
    "compose.yaml. podman-compose reads it from its own environment only.",
    "COMPOSE_PROFILES": "gpu adds metrics of NVIDIA GPUs to compose.observability.yaml.",
    "PUBLISH": "Address and port of the gateway on this host. Once it is set, every request needs "
    "a key, at first that of secrets/gateway_admin_key: see RAGLAN_GATEWAY_ADMIN_KEY_FILE below. "
    "On 0.0.0.0, put a TLS proxy before it.",
    "*_PUBLISH": "The same for the pages of compose.observability.yaml.",
    "GATEWAY_URL": "The gateway as browsers reach it, for links from Grafana to traces.",
    "IMAGE_PREFIX": "Goes before the names of Raglan's images, e.g. registry.example.com/raglan/.",
    "IMAGE_TAG": "Version of Raglan's images.",
    "*_IMAGE": "Images of others, with their versions.",
    "*_SHARED_MEMORY": "Shared memory of vLLM's processes: more for a model on several GPUs.",
    "*_MEMORY": "Most memory of each container; one that needs more is ended and restarted. "
    "With compose.gpu.yaml the defaults are 4g for the encoders and 24g for the generator.",
    "*_GPU": "GPU of each service in compose.gpu.yaml, by index or UUID (nvidia-smi -L).",
    "SOURCES_FOLDER": "Folder of sources.yaml, for compose.sources.yaml.",
    "SOURCES_DOCUMENTS": "Folder that sources find at /srv/documents, for compose.sources.yaml.",
    "PROMETHEUS_RETENTION": "Age of the oldest metrics.",
    "OLLAMA_MODEL": "Model that compose.ollama.yaml downloads, and that answers.",
    "OLLAMA_*": "Limits of the Ollama server; compose.ollama.yaml explains each.",
}
"""Variable of the Compose files -> what it is for. The first pattern that fits counts."""

OF_ALL: Final[Mapping[str, tuple[str, str]]] = {
    "RAGLAN_TRACE_CONTENT": ("0", "1 lets spans carry queries, passages and answers."),
    "RAGLAN_TRACE_SPANS": ("20000", "Newest spans that a process remembers, a kilobyte each."),
    "RAGLAN_FAULTS": ("", "Faults of a rehearsal, as JSON: docs/resilience.md."),
    "HF_HUB_OFFLINE": ("0", "1 takes models from the volume only and downloads none."),
}
"""Variable that every service reads -> default and description."""

_REFERENCE: Final = re.compile(r"\$\{(\w+)(?::?-(?:\$\{\w+:\+)?([^}]*)\}?)?\}")
"""A variable and its default, which may hang on another variable."""


def main() -> None:
    """Print the file."""
    print(HEAD)
    section("Compose")
    found = compose_variables()
    for pattern, description in OF_COMPOSE.items():
        print()
        wrapped(description)
        for name in [name for name in found if group_of(name) == pattern]:
            print(f"#{name}={found[name]}")
    section("Every service")
    for name, (default, description) in OF_ALL.items():
        variable(name, default, description)
    for service in SERVICES:
        section(service)
        of_service(service)


def of_service(service: str) -> None:
    """Print the variables of one service, those of Compose as a list of names."""
    settings = settings_of(service)
    fixed, defaults = set_by_compose(service)
    names = {
        variable: settings.model_fields[name] for variable, name in variables_of(settings).items()
    }
    prefix = str(settings.model_config.get("env_prefix"))
    owned = [
        name
        for name in names
        if name.removeprefix(prefix).lower() in OWNED or {name, f"{name}_FILE"} & fixed
    ]
    wrapped(f"Set by {BASE}: {', '.join(sorted(owned))}.")
    for name, field in names.items():
        if name in owned:
            continue
        described = " ".join((field.description or "").split())
        if is_secret(field) and name not in defaults:
            file = defaults.get(f"{name}_FILE", f"/run/secrets/{secret_of(name)}")
            variable(f"{name}_FILE", file, f"{described} The file: secrets/{Path(file).name}.")
        else:
            limits = f"({kind(field.annotation)}{bounds(field)})".replace("`", "")
            variable(name, defaults.get(name, value(field)), f"{described} {limits}")


def compose_variables() -> dict[str, str]:
    """Variable that the Compose files read themselves -> default, in the order of the files."""
    found = {"COMPOSE_FILE": BASE, "COMPOSE_PROFILES": ""}
    for path in [COMPOSE / BASE, *sorted(COMPOSE.glob("compose.*.yaml"))]:
        for name, default in _REFERENCE.findall(path.read_text()):
            if not name.startswith("RAGLAN_"):
                found.setdefault(name, default)
    return found


def group_of(name: str) -> str:
    """The pattern of `OF_COMPOSE` that describes a variable."""
    return next(each for each in OF_COMPOSE if fnmatchcase(name, each))


def set_by_compose(service: str) -> tuple[set[str], dict[str, str]]:
    """Return what `BASE` sets for good, and the defaults of what it leaves to .env."""
    held = yaml.safe_load((COMPOSE / BASE).read_text())["services"][service]["environment"]
    defaults = {name: default for value in held.values()
                for name, default in _REFERENCE.findall(str(value))}  # fmt: skip
    return set(held) - set(defaults), defaults


def secret_of(variable: str) -> str:
    """The secret that Compose mounts for a variable, named by service and field or by the field."""
    mounted: dict[str, Any] = yaml.safe_load((COMPOSE / BASE).read_text())["secrets"]
    name = variable.removeprefix("RAGLAN_").lower()
    candidates = (name, name.partition("_")[2])
    return next((each for each in candidates if each in mounted), name)


def value(field: FieldInfo) -> str:
    """The default as it would be written in the environment."""
    default = field.default
    if field.default_factory is dict:
        return "{}"
    if default is PydanticUndefined or default is None or isinstance(default, SecretStr):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def section(title: str) -> None:
    """Print a heading."""
    print(f"\n\n# --- {title} {'-' * (91 - len(title))}")


def variable(name: str, default: str, description: str) -> None:
    """Print one variable with its comment."""
    print()
    wrapped(description)
    print(f"#{name}={default}")


def wrapped(text: str) -> None:
    """Print a comment."""
    print("\n".join(lines(text)))


def lines(text: str) -> Iterator[str]:
    """Yield `text` as lines of a comment."""
    for line in textwrap.wrap(text, 97, break_on_hyphens=False, break_long_words=False):
        yield f"# {line}"


if __name__ == "__main__":
    main()
