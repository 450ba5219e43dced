"""What rows have in common: what is done to replicas, and what must be true of them."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from faults import figures
from faults.bed import START_S, Bed
from faults.open_loop import Record
from faults.process import Process
from faults.trial import Seen, Trial


def kill_all(bed: Bed, service: str) -> None:
    for replica in bed.services[service]:
        replica.send(signal.SIGKILL)
    for replica in bed.services[service]:
        replica.kill()


def over(bed: Bed, seen: Seen) -> None:
    """Every fault is repaired from now on."""
    bed.inject({})
    bed.step_clock(0)
    seen.repaired_at = time.monotonic()


async def started_again(bed: Bed, seen: Seen, *replicas: Process) -> None:
    """Start them; repaired is when they serve, which is told from outside the gateway."""
    for replica in replicas:
        replica.start()
    for replica in replicas:
        await bed.until(partial(listens, replica), START_S, f"{replica.name} listens")
    over(bed, seen)


async def listens(process: Process) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.close()
    return True


def answered(trial: Trial, records: Sequence[Record]) -> None:
    share = figures.share(records, lambda record: record.outcome == "ok")
    note = f"{figures.outcomes(records)} {figures.reasons(records)}"
    trial.found("answered", 100 * share, "%", ">= 99.9", note)


def as_before_after_s(trial: Trial, seen: Seen, after_s: float) -> None:
    """Once the fault has been met, the others carry the load well."""
    later = seen.since(seen.baseline_until + after_s, seen.repaired_at)
    trial.found(
        f"p99 against the baseline, {after_s:g} s later", figures.slowdown(later, seen.baseline()),
        "", "<= 2", f"{figures.outcomes(later)}, p99 {figures.p99_s(later) * 1e3:.0f} ms",
    )  # fmt: skip


def endpoint_events(bed: Bed, address: str, since: float) -> list[dict[str, Any]]:
    return [event for event in bed.events("endpoint", since) if event["address"] == address]


def takes_calls(event: dict[str, Any]) -> bool:
    """Whether a replica takes calls after this event."""
    return bool(event["reach"] == "serving" and event["breaker"] == "closed")


def taken_out_s(bed: Bed, address: str, since: float) -> float:
    """Seconds until the gateway sent nothing more to a replica, by its own word."""
    events = endpoint_events(bed, address, since)
    return min((e["at"] - since for e in events if not takes_calls(e)), default=math.inf)


def breakers_stayed_closed(trial: Trial, seen: Seen) -> None:
    events = trial.bed.events("endpoint", seen.baseline_until)
    opened = [event["address"] for event in events if event["breaker"] == "open"]
    trial.found("breakers that opened", len(opened), "", "<= 0")


async def texts_embedded(bed: Bed) -> list[float]:
    """How many texts each embedder has embedded since its start."""
    found = [await bed.metrics(replica) for replica in bed.services["embedder"]]
    counter = "raglan_encoder_queue_seconds_count"
    return [sum(v for (name, _), v in each.items() if name == counter) for each in found]
