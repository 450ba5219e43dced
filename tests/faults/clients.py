"""Rows of the fault matrix: clients that leave, insist, or are too many."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace

from faults import figures
from faults.bed import Bed
from faults.checks import breakers_stayed_closed, over
from faults.open_loop import Options
from faults.trial import FORM, Trial


async def crowd_leaves(trial: Trial, options: Options, *, crowd: int = 500) -> None:
    """500 clients leave in the middle of their streams."""
    bed = trial.bed
    # Beside the load they are served too: a crowd that is too much is another row.
    pace_s = 2 / options.rate
    # What so many streams need at once stays with the allocator; a second crowd shows a leak.
    await _come_and_leave(bed, crowd, pace_s)
    async with trial.under_load(options) as seen:
        running, gone_s, problems = await _come_and_leave(bed, crowd, pace_s)
        seen.repaired_at = time.monotonic() - gone_s
    note = f"of {crowd} asked for; {problems}"
    trial.found("were in mid-stream", running, "streams", f">= {crowd}", note)
    trial.found("cancelled at the generators after", gone_s * 1e3, "ms", "<= 500")
    breakers_stayed_closed(trial, seen)


async def _come_and_leave(bed: Bed, crowd: int, pace_s: float) -> tuple[float, float, str]:
    """(streams at the generators when all leave, seconds until they have ended, refusals)."""
    begun = await asyncio.gather(
        *(_begun_stream(bed.port, number * pace_s) for number in range(crowd)),
        return_exceptions=True,
    )
    running = await _running_streams(bed)
    for each in begun:
        if isinstance(each, asyncio.StreamWriter):
            each.transport.abort()

    async def gone() -> bool:
        # Another load's answers, of one token, go on.
        return await _running_streams(bed) <= crowd // 50

    gone_s = await bed.until(gone, 40, "the streams have ended")
    problems = Counter(repr(each) for each in begun if not isinstance(each, asyncio.StreamWriter))
    return running, gone_s, str(dict(problems))


async def failing_and_retried(trial: Trial, options: Options) -> None:
    """The retriever fails every call while each client retries three times, at once."""
    retrying = replace(options, retries=3)
    async with trial.under_load(retrying) as seen:
        trial.bed.inject({"retriever": {"error": "UNAVAILABLE"}})
        await asyncio.sleep(FORM.fault_s)
        over(trial.bed, seen)
    tries = len(seen.disturbed())
    attempts = sum(seen.attempts.get("retriever", {}).values())
    trial.found("tries of the clients", tries, "requests", note=f"{attempts:g} attempts in all")


async def overload(trial: Trial, options: Options, *, times: float) -> None:
    """More is asked than can be answered."""
    peak = 2 * options.rate
    mixed = replace(options, critical=0.1, batch=0.2)
    async with trial.under_load(mixed) as seen:
        await seen.load.rate(times * peak)
        begun = time.monotonic() + 1
        await asyncio.sleep(FORM.fault_s)
        ended = time.monotonic()
        await seen.load.rate(options.rate)
        over(trial.bed, seen)
    asked = seen.since(begun, ended)
    answered = [r for r in seen.records if r.outcome == "ok" and begun <= r.at + r.took_s < ended]
    goodput = len(answered) / (ended - begun)
    trial.found(
        "goodput of the peak", 100 * goodput / peak, "%", ">= 90",
        f"{goodput:.0f} of {peak:.0f} a second; {figures.outcomes(asked)}",
    )  # fmt: skip
    refusals = [record.took_s for record in asked if record.outcome == "refused"]
    trial.found("p99 of a refusal", 1e3 * figures.quantile(refusals, 0.99), "ms", "<= 20")
    critical = [record for record in asked if record.priority == "critical"]
    trial.found(
        "critical requests answered", 100 * figures.share(critical, lambda r: r.outcome == "ok"),
        "%", ">= 99" if times <= 2 else None, f"{len(critical)}",
    )  # fmt: skip


async def _running_streams(bed: Bed) -> float:
    """Answers that the generators are writing."""
    found = [await bed.metrics(replica) for replica in bed.services["generator"]]
    return sum(metrics["raglan_generator_running", ""] for metrics in found)


async def _begun_stream(port: int, after_s: float) -> asyncio.StreamWriter:
    """A stream, asked for after a while, whose first token has come; close it yourself.

    Raises:
        ConnectionError: it was refused, also when it came back as `Retry-After` asks.
    """
    await asyncio.sleep(after_s)
    body = b'{"query": "What does it cost?", "stream": true, "timeout_ms": 60000}'
    head = f"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    async with asyncio.timeout(30):
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            status = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0].decode()
            if " 200 " in status:
                await reader.readuntil(b"event: delta")
                return writer
            writer.close()
            await asyncio.sleep(1)
    raise ConnectionError(status)
