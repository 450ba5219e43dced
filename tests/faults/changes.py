"""Rows of the fault matrix: Redis, restarts, scaling, the clock."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial

from faults import figures
from faults.bed import SERVICES, START_S
from faults.checks import listens, over, texts_embedded
from faults.open_loop import Options
from faults.process import Process
from faults.trial import FORM, Trial


async def redis_fails(trial: Trial, options: Options, *, how: str) -> None:
    """Redis refuses, hangs, or forgets everything."""
    redis = trial.bed.others["redis"]
    async with trial.under_load(options) as seen:
        match how:
            case "refuses":
                redis.kill()
            case "hangs":
                redis.send(signal.SIGSTOP)
            case "flushed":
                await _redis_command(redis, b"FLUSHALL\r\n")
        await asyncio.sleep(FORM.fault_s)
        ended = time.monotonic()
        redis.send(signal.SIGCONT)
        redis.start()
        over(trial.bed, seen)
    searches = [r for r in seen.since(seen.baseline_until, ended) if r.kind == "search"]
    before = [r.took_s for r in seen.baseline() if r.kind == "search"]
    median = figures.quantile(before, 0.5)
    # 50 ms is the limit of a call to Redis; the noise of the machine is below half of it.
    waited = [r for r in searches if r.took_s > figures.quantile(before, 0.99) + 0.025]
    after = [r.took_s for r in searches if r.at > seen.baseline_until + 1]
    failed = figures.failed(seen.since(seen.baseline_until))
    trial.found("failed", failed, "requests", "<= 0")
    trial.found("searches that waited for Redis", len(waited), "requests", "<= 5")
    grown_ms = 1e3 * (figures.quantile(after, 0.5) - median)
    trial.found("median of a search, more", grown_ms, "ms", "<= 1")


async def rolling_restart(trial: Trial, options: Options) -> None:
    """Every replica of every service in turn, then the gateway."""
    bed = trial.bed
    async with trial.under_load(options, settle=False) as seen:
        for service in SERVICES:
            for replica in bed.services[service]:
                await replica.terminate()
                replica.start()
                await bed.until(partial(listens, replica), START_S, f"{replica.name} listens")
                await bed.until(bed.all_serving, START_S, f"{replica.name} serves")
        old, bed.gateway = bed.gateway, bed.new_gateway()
        bed.gateway.start()
        await bed.until(partial(bed.answers, bed.gateway), START_S, "the new gateway answers")
        status = await old.terminate()
        over(bed, seen)
    changed = seen.since(seen.baseline_until)
    trial.found("failed", figures.failed(changed), "requests", "<= 0", figures.reasons(changed))
    trial.found("exit status of the old gateway", status, "", "<= 0")


async def scale_up(trial: Trial, options: Options) -> None:
    """One embedder becomes three."""
    bed, service = trial.bed, "embedder"
    replicas = bed.services[service]
    async with trial.under_load(options, settle=False) as seen:
        for replica in replicas[1:]:
            replica.start()
        bed.list_replicas(service, len(replicas))
        listed = time.monotonic()
        await bed.until(bed.all_serving, START_S, "the new replicas serve")
        used_s = time.monotonic() - listed
        await asyncio.sleep(max(0.0, 22 - used_s))
        before = await texts_embedded(bed)
        await asyncio.sleep(8)
        calls = [now - was for now, was in zip(await texts_embedded(bed), before, strict=True)]
        over(bed, seen)
    fair = sum(calls) / len(calls)
    share = min(calls[1:]) / fair if fair else 0.0
    trial.found("of a fair share, the least used new one", 100 * share, "%", ">= 50", f"{calls}")
    trial.found("failed", figures.failed(seen.since(seen.baseline_until)), "requests", "<= 0")


async def clock_steps(trial: Trial, options: Options) -> None:
    """The wall clock of every process goes an hour forward, then an hour back."""
    log = trial.bed.folder / "gateway.log"
    async with trial.under_load(options) as seen:
        # By their times these log lines could not be found.
        logged = log.stat().st_size
        for seconds in (3600, -3600):
            trial.bed.step_clock(seconds)
            await asyncio.sleep(FORM.fault_s)
        over(trial.bed, seen)
    changed = seen.disturbed()
    trial.found("failed", figures.failed(changed), "requests", "<= 0", figures.reasons(changed))
    trial.found("degraded", sum(bool(r.degraded) for r in changed), "requests", "<= 0")
    slower = figures.slowdown(changed, seen.baseline())
    trial.found("p99 against the baseline", slower, "", "<= 1.5")
    opened = log.read_bytes()[logged:].count(b'"breaker": "open"')
    trial.found("breakers that opened", opened, "", "<= 0")


async def _redis_command(redis: Process, command: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(command)
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()
