"""Rows of the fault matrix: several faults, one upon the other, drawn by a seed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from typing import Any

from faults.bed import SERVICES, Bed
from faults.checks import started_again
from faults.open_loop import Options
from faults.trial import FORM, Trial

Strike = Callable[[Bed, str, int, random.Random], None]


async def at_random(trial: Trial, options: Options, *, seed: int) -> None:
    """Three faults, each of a replica that is drawn; every other one is repaired before the next.

    What is drawn comes from `seed` alone, so that a schedule can be repeated.
    """
    bed, chance = trial.bed, random.Random(seed)
    async with trial.under_load(options) as seen:
        for _ in range(3):
            name = chance.choice(sorted(STRIKES))
            service, number = chance.choice(SERVICES), chance.randrange(2)
            trial.notes.append(f"{name} {service}-{number}")
            STRIKES[name](bed, service, number, chance)
            await asyncio.sleep(chance.uniform(0.5, FORM.fault_s))
            if chance.random() < 0.5:
                _repair(bed)
        _repair(bed)
        await started_again(bed, seen, *bed.processes())


def _repair(bed: Bed) -> None:
    bed.inject({})
    for process in bed.processes():
        process.send(signal.SIGCONT)
        process.start()


def _signal(number: signal.Signals) -> Strike:
    return lambda bed, service, replica, _: bed.services[service][replica].send(number)


def _faulty(draw: Callable[[random.Random], dict[str, Any]]) -> Strike:
    return lambda bed, service, replica, chance: bed.inject(
        {f"{service}@{bed.address(service, replica)}": draw(chance)}
    )


STRIKES: dict[str, Strike] = {
    "kill": _signal(signal.SIGKILL),
    "stop": _signal(signal.SIGSTOP),
    "block": _signal(signal.SIGUSR1),
    "restart": _signal(signal.SIGTERM),
    "slow": _faulty(lambda chance: {"latency_ms": chance.uniform(50, 2_000)}),
    "fail": _faulty(lambda chance: {"error": "UNAVAILABLE", "percent": chance.uniform(10, 100)}),
    "break": _faulty(lambda chance: {"error": "INTERNAL", "percent": chance.uniform(10, 100)}),
    "stall": _faulty(lambda chance: {"stall": True, "percent": chance.uniform(10, 100)}),
    "cut": _faulty(lambda chance: {"cut_after": chance.randrange(8)}),
}
