"""Checks of what `/v1/status` tells: services, what lies behind them, clocks, the wire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from raglan_cli.mesh import BEHIND_GATEWAY, TRACER
from raglan_cli.verification import SERVING, Check, Row, failed, passed, skipped

MAX_SKEW_S: Final = 1.0
"""Spans of one trace, leases of workers and the age of what is kept are compared across clocks."""

_BEHIND: Final = (
    # dependency, service that uses it, why it may be missing, its setting
    ("redis", "gateway", "The gateway uses none.", "RAGLAN_GATEWAY_REDIS_URL"),
    (
        "postgresql",
        "ingester",
        "The ingester keeps its jobs in a file.",
        "RAGLAN_INGESTER_DATABASE_URL",
    ),
    ("qdrant", "retriever", "The retriever keeps its index itself.", "RAGLAN_RETRIEVER_QDRANT_URL"),
)


def of_services(rows: Sequence[Row]) -> Iterator[Check]:
    """One check for each service of the mesh: all of its replicas serve."""
    for service in BEHIND_GATEWAY:
        replicas = [row for row in rows if row["service"] == service]
        if not replicas and service == TRACER:
            yield skipped(TRACER, "There is none: traces are off or go to a collector of yours.")
        else:
            yield _service(service, replicas)


def _service(service: str, replicas: Sequence[Row]) -> Check:
    if not replicas:
        return failed(
            service,
            "The gateway finds no address of it.",
            f"Check RAGLAN_GATEWAY_{service.upper()}_ADDRESS, and that the name resolves there.",
        )
    down = [row for row in replicas if row["state"] != SERVING]
    if down:
        named = ", ".join(f"{row['address']} is {row['state']}" for row in down)
        return failed(
            service,
            f"{len(down)} of {len(replicas)} down: {named}.",
            "Read its log (raglan status names the file); 'unreachable' is also a wrong address, "
            "a closed port or a NetworkPolicy.",
        )
    if problems := [each for row in replicas for each in row.get("problems", ())]:
        return failed(service, " ".join(problems), "Its log says more: raglan status names it.")
    silent = [row["address"] for row in replicas if row.get("version") is None]
    if silent:
        return failed(
            service,
            f"{', '.join(silent)} passes its health check and does not answer GetInfo in a second.",
            "Look at the load of its machine, and ask again.",
        )
    engine, model = replicas[0].get("engine"), replicas[0].get("model")
    what = " with ".join(part for part in (engine, model) if part)
    count = "1 replica serves" if len(replicas) == 1 else f"{len(replicas)} replicas serve"
    return passed(service, f"{count}{f': {what}' if what else ''}.")


def of_dependencies(rows: Sequence[Row]) -> Iterator[Check]:
    """One check for each of Redis, PostgreSQL and Qdrant, as the service that uses it reports."""
    for name, service, why_none, setting in _BEHIND:
        told = [row for row in rows if row["service"] == service and row.get("wire_revision")]
        if not told:
            yield skipped(name, f"No {service} answers that could tell.")
            continue
        found = [each for row in told for each in row["dependencies"] if each["name"] == name]
        away = [each for each in found if not each["reachable"]]
        if away:
            yield failed(
                name,
                f"The {service} does not reach it: {away[0]['problem']}",
                f"Check {setting}, the password in it, and that {name} runs.",
            )
        elif found:
            yield passed(name, f"It answers the {service}.")
        else:
            yield skipped(name, why_none)
    yield from _file_database(rows)


def _file_database(rows: Sequence[Row]) -> Iterator[Check]:
    """The ingester's own file, where it has become unusable."""
    for row in rows:
        for each in row.get("dependencies", ()):
            if each["name"] == "sqlite" and not each["reachable"]:
                yield failed(
                    "sqlite",
                    f"The ingester cannot use its database: {each['problem']}",
                    "Check space and permissions of RAGLAN_INGESTER_DATA_DIR.",
                )


def of_clocks(status: dict[str, Any], asked_at: float, answered_at: float) -> Check:
    """Clocks of all services and of this machine, against the gateway's.

    Args:
        status: the reply of `/v1/status`.
        asked_at: this machine's clock before the request, in seconds since 1970.
        answered_at: the same after the reply.
    """
    now = status["time"]
    here_s = now - min(max(now, asked_at), answered_at)
    skews = {"this machine": -here_s}
    for row in status["services"]:
        if (skew_ms := row.get("clock_skew_ms")) is not None:
            skews[f"{row['service']} at {row['address']}"] = skew_ms / 1e3
    wrong = {name: skew for name, skew in skews.items() if abs(skew) > MAX_SKEW_S}
    if wrong:
        named = ", ".join(f"{name} by {skew:+.1f} s" for name, skew in wrong.items())
        return failed(
            "clocks",
            f"They differ from the gateway's: {named}; up to {MAX_SKEW_S:g} s is well.",
            "Let chrony or systemd-timesyncd keep the time of those machines.",
        )
    return passed("clocks", f"{len(skews)} clocks are within {MAX_SKEW_S:g} s of the gateway's.")


def of_wire(rows: Sequence[Row]) -> Check:
    """The contracts that the services were built with are the same."""
    answering = [row for row in rows if row.get("version")]
    revisions = {row.get("wire_revision") or 0 for row in answering}
    if len(revisions) <= 1:
        return passed(
            "wire", f"{len(answering)} processes speak revision {max(revisions, default=0)}."
        )
    newest = max(revisions)
    old = [
        f"{row['service']} at {row['address']} (version {row['version']}, "
        f"revision {row.get('wire_revision') or 'unknown'})"
        for row in answering
        if (row.get("wire_revision") or 0) != newest
    ]
    return failed(
        "wire",
        f"Older than revision {newest}: {', '.join(old)}.",
        "They work together while an upgrade goes on; roll what is old to finish it.",
    )
