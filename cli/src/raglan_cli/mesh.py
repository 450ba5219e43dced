"""Plan of a mesh on this machine: processes with their ports, environment and logs.

Pure planning: the only query to the machine is whether a port is free.
"""

from __future__ import annotations

import difflib
import random
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from raglan.lifecycle import LAST_WORD_S
from raglan.rpc.addresses import family_of, format_address
from raglan.settings import SERVICES, ServiceSettings, unknown_variables
from raglan.telemetry import variables as trace_variables

from raglan_cli.failure import Failure, UsageFailure

GATEWAY: Final = "gateway"
MODEL_SERVICES: Final = ("embedder", "retriever", "reranker", "generator", "ingester")
TRACER: Final = "tracer"
INGESTER_CALLS: Final = ("embedder", "retriever", "generator")
BEHIND_GATEWAY: Final = (*MODEL_SERVICES, TRACER)
REPLICATED: Final = (GATEWAY, "embedder", "reranker", "generator")
MAX_REPLICAS: Final = 16
LOOPBACK: Final = "127.0.0.1"

_PORTS: Final = range(20_000, 32_000)
"""Below Linux's range for outgoing connections, so that none takes a port between our look and
the service's bind."""

KILLED_S: Final = 5.0
"""For a process that was killed to be gone."""

_EXIT_S: Final = 1.3
"""For a process to be gone after its last word."""

_STORE: Final = "RAGLAN_RETRIEVER_STORE"
_OTLP_PORT: Final = "RAGLAN_TRACER_OTLP_PORT"
_USUAL_OTLP_PORT: Final = 4319
_PEERS: Final = "RAGLAN_GATEWAY_PEERS_FILE"
_RATE_LIMIT: Final = "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE"
_REDIS: Final = ("RAGLAN_GATEWAY_REDIS_URL", "RAGLAN_GATEWAY_REDIS_URL_FILE")
_SHARED_STORES: Final = ("qdrant", "null")
"""With these a retriever holds no data of its own."""

_ALONE: Final = {
    "retriever": "Qdrant Edge gives a shard to one process (RAGLAN_RETRIEVER_STORE=qdrant scales)",
    "ingester": "its jobs have one owner on this machine",
    "tracer": "its store has one owner",
}


@dataclass(frozen=True, slots=True)
class Program:
    """One process to run."""

    service: str
    replica: int
    """From 1."""
    address: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    """All of its environment."""
    log: Path
    grace_s: float = 12.0
    """From SIGTERM to SIGKILL."""
    on_shared_socket: bool = False
    """True if it serves on a socket that the supervisor holds."""
    alone: bool = False
    """True if it holds its data exclusively, so that no second one may run beside it."""

    @property
    def name(self) -> str:
        """Name of the process, such as "embedder-1"."""
        return f"{self.service}-{self.replica}"


@dataclass(frozen=True, slots=True)
class Mesh:
    """The processes of `raglan up`."""

    url: str
    listen: tuple[str, int]
    """Host and port of the gateway, as the user gave them."""
    data: Path
    programs: tuple[Program, ...]
    endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Service -> addresses, for those of which a rolling restart runs one more for a while."""
    otlp: str | None = None
    """URL at which spans of others are received."""

    @property
    def stop_s(self) -> float:
        """The longest that the end of all takes: two waves, callers first, and a little."""
        return 2 * (max(program.grace_s for program in self.programs) + KILLED_S) + 6


def plan(
    data: Path,
    port: int,
    replicas: Mapping[str, int],
    environ: Mapping[str, str],
    *,
    take_ports: Callable[[int], Sequence[int]] | None = None,
) -> Mesh:
    """The mesh on `data`, its gateway on `port`.

    What `environ` sets stays: a service whose address it gives the gateway is taken to run
    elsewhere, and is not started.
    """
    external = {s: environ[a] for s in BEHIND_GATEWAY if environ.get(a := _address_variable(s))}
    started = [s for s in BEHIND_GATEWAY if s not in external and (s != TRACER or _traces(environ))]
    counts = {s: replicas.get(s, 1) for s in started}
    free = iter((take_ports or free_ports)(sum(counts.values()) + 1))
    otlp_port = _otlp_port(environ, next(free)) if TRACER in started else -1
    addresses = {
        s: [format_address(_reachable(s, environ), port) for port in _ports(s, n, free, environ)]
        for s, n in counts.items()
    }
    alone = _alone(environ)
    joined = external | {
        # In a file, because a rolling restart runs one more of them for a while.
        s: f"@{addresses_file(data, s)}" if s not in alone else listed[0]
        for s, listed in addresses.items()
    }
    # All gateways accept on one socket.
    gateways = replicas.get(GATEWAY, 1)
    addresses[GATEWAY] = [format_address(_reachable(GATEWAY, environ), port)] * gateways
    programs = [
        Program(
            service=service,
            replica=number,
            address=address,
            argv=(sys.executable, "-m", f"raglan_{service}"),
            env=_environment(service, address, data, joined, environ)
            | ({_OTLP_PORT: str(otlp_port)} if service == TRACER else {})
            | _metrics_of(service, number),
            log=data / "logs" / f"{service}-{number}.log",
            grace_s=_grace_s(service, environ),
            on_shared_socket=service == GATEWAY,
            alone=service in alone,
        )
        for service, listed in addresses.items()
        for number, address in enumerate(listed, 1)
    ]
    return Mesh(
        url=f"http://{addresses[GATEWAY][0]}",
        listen=(_host(GATEWAY, environ), port),
        data=data,
        programs=tuple(programs),
        endpoints={s: tuple(a) for s, a in addresses.items() if s not in {*alone, GATEWAY}},
        otlp=f"http://{_otlp_host(environ)}:{otlp_port}/v1/traces" if otlp_port > 0 else None,
    )


def _traces(environ: Mapping[str, str]) -> bool:
    """Whether this mesh keeps its traces itself: spans are made, and no collector gets them."""
    return not trace_variables.exported(environ) and not trace_variables.disabled(environ)


def _otlp_port(environ: Mapping[str, str], free: int) -> int:
    """The port that is set, else the usual one, else, where another mesh has that, `free`."""
    for name in (_OTLP_PORT, _OTLP_PORT.replace("TRACER", "GATEWAY")):
        if (given := environ.get(name, "")).removeprefix("-").isdecimal():
            return int(given)
    return _USUAL_OTLP_PORT if is_free(_USUAL_OTLP_PORT, _otlp_host(environ)) else free


def _otlp_host(environ: Mapping[str, str]) -> str:
    return environ.get("RAGLAN_TRACER_OTLP_HOST") or environ.get(
        "RAGLAN_GATEWAY_OTLP_HOST", LOOPBACK
    )


def _host(service: str, environ: Mapping[str, str]) -> str:
    """Where `service` listens."""
    return environ.get(f"RAGLAN_{service.upper()}_HOST") or LOOPBACK


def _reachable(service: str, environ: Mapping[str, str]) -> str:
    """Where this machine's processes find `service`."""
    host = _host(service, environ)
    return LOOPBACK if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared only


def _ports(
    service: str, count: int, free: Iterator[int], environ: Mapping[str, str]
) -> list[int | str]:
    """Free ports for the replicas of `service`; one that is set is the first replica's."""
    ports: list[int | str] = list(islice(free, count))
    if fixed := environ.get(f"RAGLAN_{service.upper()}_PORT"):
        ports[0] = fixed
    return ports


def _alone(environ: Mapping[str, str]) -> set[str]:
    """The services that hold their data for themselves."""
    always = {"ingester", TRACER}
    return always if environ.get(_STORE) in _SHARED_STORES else {*always, "retriever"}


def unshared_limit(replicas: Mapping[str, int], environ: Mapping[str, str]) -> str:
    """Say that each of several gateways counts callers for itself; empty where that is not so."""
    gateways = replicas.get(GATEWAY, 1)
    limit = environ.get(_RATE_LIMIT, "0")
    if gateways == 1 or not limit.isdecimal() or limit == "0" or any(map(environ.get, _REDIS)):
        return ""
    return (
        f"Each of the {gateways} gateways counts a caller's requests for itself: up to "
        f"{gateways * int(limit)} a minute instead of {limit}. "
        "RAGLAN_GATEWAY_REDIS_URL lets them count together."
    )


def stand_in(program: Program) -> Program:
    """The same program on a free port, to run while the other is restarted."""
    host, port = program.address.rpartition(":")[0], free_ports(1)[0]
    prefix = f"RAGLAN_{program.service.upper()}"
    ports = {f"{prefix}_PORT": str(port), f"{prefix}_METRICS_PORT": "0"}
    return replace(
        program,
        replica=program.replica + 1,
        address=f"{host}:{port}",
        env={**program.env, **ports},
        log=program.log.with_name(f"{program.service}-{program.replica + 1}.log"),
    )


def addresses_file(data: Path, service: str) -> Path:
    """Return the address file of `service`, which the gateway reads periodically."""
    return data / "run" / f"{service}.addresses"


def _address_variable(service: str) -> str:
    return f"RAGLAN_GATEWAY_{service.upper()}_ADDRESS"


def _grace_s(service: str, environ: Mapping[str, str]) -> float:
    """Return the grace period of `service` by its settings, with a margin, in seconds."""
    told = 0.0
    for field_ in ("shutdown_drain_s", "shutdown_grace_s"):
        default = ServiceSettings.model_fields[field_].default
        try:
            told += float(environ.get(f"RAGLAN_{service}_{field_}".upper(), default))
        except ValueError:  # the service will say so, and not start
            told += default
    return told + LAST_WORD_S + _EXIT_S


def _metrics_of(service: str, replica: int) -> dict[str, str]:
    """A port that was set is the first replica's, as with the port of its calls."""
    if service == GATEWAY or replica == 1:  # a gateway shows its metrics where it answers
        return {}
    return {f"RAGLAN_{service.upper()}_METRICS_PORT": "0"}


def _environment(
    service: str, address: str, data: Path, joined: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    prefix = f"RAGLAN_{service.upper()}"
    ours = {"RAGLAN_DATA": str(data), f"{prefix}_LOG_FORMAT": "json"}
    match service:
        case "gateway":
            ours |= {_address_variable(s): joined[s] for s in BEHIND_GATEWAY if s in joined}
            ours[_PEERS] = str(addresses_file(data, GATEWAY))
        case "tracer":
            ours |= {f"{prefix}_{s.upper()}_ADDRESS": joined[s] for s in MODEL_SERVICES}
        case "ingester":
            ours |= {f"{prefix}_{s.upper()}_ADDRESS": joined[s] for s in INGESTER_CALLS}
    decided = {"RAGLAN_DATA": str(data), f"{prefix}_PORT": address.rpartition(":")[2]}
    return {**ours, **environ, **decided}


def parse_replicas(options: Sequence[str]) -> dict[str, int]:
    """`["gateway=2,embedder=2"]` -> `{"gateway": 2, "embedder": 2}`.

    Raises:
        UsageFailure: not of that form, not a service, or one that cannot have replicas.
    """
    replicas: dict[str, int] = {}
    for option in (each.strip() for listed in options for each in listed.split(",")):
        service, equals, number = option.partition("=")
        if not equals or not number.isdecimal():
            raise UsageFailure(f"--replicas {option}: write it as embedder=2.")
        if service not in SERVICES:
            raise UsageFailure(
                f"--replicas {option}: there is no service {service!r}; "
                f"those with replicas are {', '.join(REPLICATED)}."
            )
        if service not in REPLICATED and int(number) != 1:
            raise UsageFailure(
                f"--replicas {option}: the {service} runs once, because {_ALONE[service]}; "
                f"those with replicas are {', '.join(REPLICATED)}."
            )
        if not 1 <= int(number) <= MAX_REPLICAS:
            raise UsageFailure(f"--replicas {option}: give 1 to {MAX_REPLICAS}.")
        replicas[service] = int(number)
    return replicas


def refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """Refuse variables that belong to no service; each service refuses its own misspelt ones.

    Raises:
        UsageFailure: one sentence a variable, with the nearest service's name.
    """
    unknown = unknown_variables((), prefix="", environ=environ)
    if unknown:
        raise UsageFailure("\n".join(_no_such_setting(name) for name in sorted(unknown)))


def _no_such_setting(name: str) -> str:
    sentence = f"{name} is set, but there is no such setting."
    _, middle, rest = (*name.split("_", 2), "")[:3]
    near = difflib.get_close_matches(middle.lower(), SERVICES, 1)
    if near and rest:
        return f"{sentence} Did you mean RAGLAN_{near[0].upper()}_{rest}?"
    return f"{sentence} Unset it; settings are RAGLAN_<SERVICE>_<FIELD>."


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nothing listens now."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise Failure(f"Fewer than {count} free ports between {_PORTS[0]} and {_PORTS[-1]}.")


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether `port` is free."""
    with socket.socket(family_of(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
