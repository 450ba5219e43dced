"""Rows of the fault matrix: replicas that die, hang or crawl."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from dataclasses import replace

from faults import figures
from faults.bed import SERVICES, START_S
from faults.checks import (
    answered,
    as_before_after_s,
    breakers_stayed_closed,
    kill_all,
    over,
    started_again,
    taken_out_s,
    texts_embedded,
)
from faults.open_loop import Options
from faults.trial import FORM, RECOVERY_S, Trial

OUT_S = 10.0
"""Within which a replica that hangs or crawls must be out of the way."""
BLOCK_S = 2.0
"""As in wrapped.py."""
FAILURES_COUNT_S = 10.0
"""The window of a circuit breaker."""
FLAG = {"embedder": "embed:lexical", "reranker": "rerank:fused_order"}


async def kill_one(trial: Trial, options: Options, *, service: str) -> None:
    """kill -9 one replica."""
    replica = trial.bed.services[service][0]
    async with trial.under_load(options) as seen:
        replica.kill()
        await asyncio.sleep(FORM.fault_s)
        await started_again(trial.bed, seen, replica)
    disturbed = figures.unary(seen.since(seen.baseline_until))
    trial.found("failed unary requests", figures.failed(disturbed), "requests", "<= 0")


async def all_down(trial: Trial, options: Options, *, service: str) -> None:
    """Every replica of a service that has a fallback."""
    async with trial.under_load(options) as seen:
        kill_all(trial.bed, service)
        down = time.monotonic()
        await asyncio.sleep(FORM.fault_s)
        up = time.monotonic()
        await started_again(trial.bed, seen, *trial.bed.services[service])
    disturbed = seen.since(seen.baseline_until)
    answered(trial, disturbed)
    flagged = figures.share(
        [record for record in seen.since(down, up) if record.outcome == "ok"],
        lambda record: FLAG[service] in record.degraded,
    )
    trial.found("of those, flagged degraded", 100 * flagged, "%", ">= 99.9")


async def retriever_down(trial: Trial, options: Options) -> None:
    """Every retriever: a cached answer, or a quick and typed refusal."""
    async with trial.under_load(options) as seen:
        kill_all(trial.bed, "retriever")
        await asyncio.sleep(FORM.fault_s)
        begun = time.monotonic()
        await started_again(trial.bed, seen, *trial.bed.services["retriever"])
    # Once open: the second that it may take until then is left out.
    refused = seen.since(seen.baseline_until + 1, begun)
    wrong = [r for r in refused if r.outcome != "ok" and (r.outcome, r.status) != ("refused", 503)]
    streams = [r for r in wrong if r.kind == "stream" and r.code == "UNAVAILABLE"]
    trial.found(
        "neither cached nor 503 (a stream: UNAVAILABLE)", len(wrong) - len(streams), "requests",
        "<= 0", f"{figures.outcomes(refused)} of {len(refused)}",
    )  # fmt: skip
    took_ms = figures.quantile((record.took_s for record in refused), 0.99) * 1e3
    trial.found("p99 of a refusal or cached answer", took_ms, "ms", "<= 50")
    served = [r for r in seen.since(begun) if r.outcome == "ok" and not r.degraded]
    first = min((record.at for record in served), default=math.inf)
    trial.found("served again after the start", first - begun, "s", f"<= {RECOVERY_S:g}")


async def generator_down(trial: Trial, options: Options) -> None:
    """Every generator: the passages are quoted."""
    async with trial.under_load(options) as seen:
        kill_all(trial.bed, "generator")
        down = time.monotonic()
        await asyncio.sleep(FORM.fault_s)
        up = time.monotonic()
        await started_again(trial.bed, seen, *trial.bed.services["generator"])
    questions = [record for record in seen.since(down, up) if record.kind != "search"]
    quoted = figures.share(
        questions,
        lambda r: r.outcome == "ok" and "generate:passages" in r.degraded and r.answer > "",
    )
    trial.found("answered by quoted passages", 100 * quoted, "%", ">= 99.9", f"{len(questions)}")


async def generator_dies(trial: Trial, options: Options) -> None:
    """The generator's streams break after 5 tokens."""
    tokens = 5
    streaming = replace(options, mixture=(0.3, 0.3, 0.4))
    async with trial.under_load(streaming) as seen:
        before = await _attempts(trial, "generator")
        trial.bed.inject({"generator": {"cut_after": tokens}})
        await asyncio.sleep(FORM.fault_s)
        after = await _attempts(trial, "generator")
        over(trial.bed, seen)
    streams = [r for r in seen.since(seen.baseline_until) if r.kind == "stream"]
    # From the first that met the fault to the last.
    cut = [r.at for r in streams if r.deltas and r.outcome != "ok"]
    broken = figures.due(streams, min(cut), max(cut) + 1e-6) if cut else []
    begun_ones = [record for record in broken if record.deltas]
    exact = figures.share(begun_ones, lambda r: (r.outcome, r.deltas) == ("error", tokens))
    trial.found(
        f"streams with exactly {tokens} tokens, then `error`", 100 * exact, "%", ">= 100",
        f"{len(begun_ones)} of {len(broken)} streams had begun; {figures.outcomes(broken)}",
    )  # fmt: skip
    trial.found("streams that were cut", len(begun_ones), "streams", ">= 5")
    again = sum(after[kind] - before.get(kind, 0) for kind in after if kind != "first")
    trial.found("generated again", again, "attempts", "<= 0")


async def stop_one(trial: Trial, options: Options, *, service: str) -> None:
    """SIGSTOP one replica."""
    replica = trial.bed.services[service][0]
    async with trial.under_load(options) as seen:
        replica.send(signal.SIGSTOP)
        await asyncio.sleep(OUT_S + FORM.fault_s)
        replica.send(signal.SIGCONT)
        over(trial.bed, seen)
    out_s = taken_out_s(trial.bed, trial.bed.address(service, 0), seen.baseline_until)
    trial.found("out of the way after", out_s, "s", f"<= {OUT_S:g}")
    as_before_after_s(trial, seen, OUT_S)


async def slow_one(trial: Trial, options: Options, *, service: str) -> None:
    """One replica answers 2 s late."""
    address = trial.bed.address(service, 0)
    async with trial.under_load(options) as seen:
        trial.bed.inject({f"{service}@{address}": {"latency_ms": 2_000}})
        await asyncio.sleep(OUT_S + FORM.fault_s)
        over(trial.bed, seen)
    as_before_after_s(trial, seen, OUT_S)
    trial.found("extra calls", 100 * seen.share_of_extra(), "%", "<= 5", f"{seen.attempts}")


async def all_slower(trial: Trial, options: Options) -> None:
    """Every replica answers 500 ms late: a slow day, and no replica's fault."""
    async with trial.under_load(options) as seen:
        trial.bed.inject({service: {"latency_ms": 500} for service in SERVICES})
        await asyncio.sleep(2 * FORM.fault_s)
        over(trial.bed, seen)
    breakers_stayed_closed(trial, seen)
    slower = seen.disturbed()
    share = figures.share(slower, lambda record: record.outcome == "ok")
    trial.found("answered meanwhile", 100 * share, "%", note=figures.reasons(slower))


async def black_hole(trial: Trial, options: Options) -> None:
    """Packets to one embedder and one generator are dropped; the connections stay open."""
    services = trial.bed.setup.proxied
    async with trial.under_load(options) as seen:
        for service in services:
            trial.bed.others[f"proxy-{service}"].send(signal.SIGUSR1)
        await asyncio.sleep(16 + FORM.fault_s)
        for service in services:
            trial.bed.others[f"proxy-{service}"].send(signal.SIGUSR2)
        await trial.bed.until(trial.bed.all_serving, START_S, "all replicas serve again")
        over(trial.bed, seen)
    for service in services:
        out_s = taken_out_s(trial.bed, trial.bed.address(service, 0), seen.baseline_until)
        trial.found(f"{service} noticed after", out_s, "s", "<= 16")


async def blocked_loop(trial: Trial, options: Options) -> None:
    """The event loop of one embedder does nothing for 2 s."""
    bed, service = trial.bed, "embedder"
    async with trial.under_load(options) as seen:
        bed.services[service][0].send(signal.SIGUSR1)
        await asyncio.sleep(BLOCK_S)
        over(bed, seen)
        # What it failed to do counts against it for the length of a breaker's window.
        await asyncio.sleep(FAILURES_COUNT_S)
        before = await texts_embedded(bed)
        await asyncio.sleep(RECOVERY_S - FAILURES_COUNT_S)
        done = [now - was for now, was in zip(await texts_embedded(bed), before, strict=True)]
    late = seen.since(seen.baseline_until + BLOCK_S / 4, seen.repaired_at)
    waited = sum(record.took_s > BLOCK_S / 4 for record in late)
    trial.found("waited for it, 0.5 s into the block", waited, "requests", "<= 0", f"{len(late)}")
    fair = sum(done) / len(done)
    trial.found("of a fair share, 10 to 15 s later", 100 * done[0] / fair, "%", ">= 50", f"{done}")
    trial.found("failed", figures.failed(seen.since(seen.baseline_until)), "requests", "<= 0")


async def _attempts(trial: Trial, service: str) -> dict[str, float]:
    return (await trial.attempts()).get(service, {})
