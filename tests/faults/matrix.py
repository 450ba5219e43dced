"""The fault matrix: each row is a function that breaks a mesh and says what must still hold."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from faults import figures
from faults.bed import SERVICES, START_S, Bed, Setup
from faults.open_loop import Options, Record
from faults.process import Process
from faults.trial import FORM, RECOVERY_S, Seen, Trial

RunRow = Callable[[Trial, Options], Awaitable[None]]

OUT_S = 10.0
"""Within which a replica that hangs or crawls must be out of the way."""
FLAG = {"embedder": "embed:lexical", "reranker": "rerank:fused_order"}


@dataclass(frozen=True)
class Scenario:
    """One row. Rows with the same setup share a mesh."""

    name: str
    run: RunRow
    setup: Setup = Setup()
    short: bool = False
    """Whether `make test` runs it too."""


# --- Replicas that die ---------------------------------------------------------------------------


async def kill_one(trial: Trial, options: Options, *, service: str) -> None:
    """kill -9 one replica."""
    replica = trial.bed.services[service][0]
    async with trial.under_load(options) as seen:
        replica.kill()
        await asyncio.sleep(FORM.fault_s)
        await _started_again(trial.bed, seen, replica)
    disturbed = figures.unary(seen.since(seen.baseline_until))
    trial.found("failed unary requests", figures.failed(disturbed), "requests", "<= 0")


async def all_down(trial: Trial, options: Options, *, service: str) -> None:
    """Every replica of a service that has a fallback."""
    async with trial.under_load(options) as seen:
        _kill_all(trial.bed, service)
        down = time.monotonic()
        await asyncio.sleep(FORM.fault_s)
        up = time.monotonic()
        await _started_again(trial.bed, seen, *trial.bed.services[service])
    disturbed = seen.since(seen.baseline_until)
    _answered(trial, disturbed)
    flagged = figures.share(
        [record for record in seen.since(down, up) if record.outcome == "ok"],
        lambda record: FLAG[service] in record.degraded,
    )
    trial.found("of those, flagged degraded", 100 * flagged, "%", ">= 99.9")


async def retriever_down(trial: Trial, options: Options) -> None:
    """Every retriever: a cached answer, or a quick and typed refusal."""
    async with trial.under_load(options) as seen:
        _kill_all(trial.bed, "retriever")
        await asyncio.sleep(FORM.fault_s)
        begun = time.monotonic()
        await _started_again(trial.bed, seen, *trial.bed.services["retriever"])
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
    served = [r for r in seen.since(begun) if r.outcome == "ok"]
    first = min((record.at for record in served), default=math.inf)
    trial.found("served again after the start", first - begun, "s", f"<= {RECOVERY_S:g}")


async def generator_down(trial: Trial, options: Options) -> None:
    """Every generator: the passages are quoted."""
    async with trial.under_load(options) as seen:
        _kill_all(trial.bed, "generator")
        down = time.monotonic()
        await asyncio.sleep(FORM.fault_s)
        up = time.monotonic()
        await _started_again(trial.bed, seen, *trial.bed.services["generator"])
    questions = [record for record in seen.since(down, up) if record.kind != "search"]
    quoted = figures.share(
        questions,
        lambda r: r.outcome == "ok" and "generate:passages" in r.degraded and r.answer > "",
    )
    trial.found("answered by quoted passages", 100 * quoted, "%", ">= 99.9", f"{len(questions)}")


async def generator_dies(trial: Trial, options: Options) -> None:
    """The generator's streams break after 5 tokens."""
    tokens = 5
    async with trial.under_load(options) as seen:
        before = await _attempts(trial, "generator")
        trial.bed.inject({"generator": {"cut_after": tokens}})
        begun = time.monotonic() + 0.2
        await asyncio.sleep(FORM.fault_s)
        after = await _attempts(trial, "generator")
        _over(trial.bed, seen)
    broken = [r for r in seen.since(begun, seen.repaired_at - 0.2) if r.kind == "stream"]
    begun_ones = [record for record in broken if record.deltas]
    exact = figures.share(begun_ones, lambda r: (r.outcome, r.deltas) == ("error", tokens))
    trial.found(
        f"streams with exactly {tokens} tokens, then `error`", 100 * exact, "%", ">= 100",
        f"{len(begun_ones)} of {len(broken)} streams had begun; {figures.outcomes(broken)}",
    )  # fmt: skip
    trial.found("streams that were cut", len(begun_ones), "streams", ">= 5")
    again = sum(after[kind] - before.get(kind, 0) for kind in after if kind != "first")
    trial.found("generated again", again, "attempts", "<= 0")


# --- Replicas that hang or crawl -----------------------------------------------------------------


async def stop_one(trial: Trial, options: Options, *, service: str) -> None:
    """SIGSTOP one replica."""
    replica = trial.bed.services[service][0]
    async with trial.under_load(options) as seen:
        replica.send(signal.SIGSTOP)
        await asyncio.sleep(OUT_S + FORM.fault_s)
        replica.send(signal.SIGCONT)
        _over(trial.bed, seen)
    out_s = _taken_out_s(trial.bed, trial.bed.address(service, 0), seen.baseline_until)
    trial.found("out of the way after", out_s, "s", f"<= {OUT_S:g}")
    _as_before_after_s(trial, seen, OUT_S)


async def slow_one(trial: Trial, options: Options, *, service: str) -> None:
    """One replica answers 2 s late."""
    address = trial.bed.address(service, 0)
    async with trial.under_load(options) as seen:
        trial.bed.inject({f"{service}@{address}": {"latency_ms": 2_000}})
        await asyncio.sleep(OUT_S + FORM.fault_s)
        _over(trial.bed, seen)
    _as_before_after_s(trial, seen, OUT_S)
    trial.found("extra calls", 100 * seen.share_of_extra(), "%", "<= 5", f"{seen.attempts}")


async def all_slower(trial: Trial, options: Options) -> None:
    """Every replica answers 500 ms late: a slow day, and no replica's fault."""
    async with trial.under_load(options) as seen:
        trial.bed.inject(dict.fromkeys(SERVICES, {"latency_ms": 500}))
        await asyncio.sleep(2 * FORM.fault_s)
        _over(trial.bed, seen)
    _breakers_stayed_closed(trial, seen)


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
        _over(trial.bed, seen)
    for service in services:
        out_s = _taken_out_s(trial.bed, trial.bed.address(service, 0), seen.baseline_until)
        trial.found(f"{service} noticed after", out_s, "s", "<= 16")


async def blocked_loop(trial: Trial, options: Options) -> None:
    """The event loop of one embedder does nothing for 2 s."""
    replica = trial.bed.services["embedder"][0]
    async with trial.under_load(options) as seen:
        replica.send(signal.SIGUSR1)
        await asyncio.sleep(2)
        _over(trial.bed, seen)
    address = trial.bed.address("embedder", 0)
    out_s = _taken_out_s(trial.bed, address, seen.baseline_until)
    trial.found("taken out after", out_s, "s", "<= 2", f"{figures.outcomes(seen.disturbed())}")
    back = [e["at"] for e in _endpoint_events(trial.bed, address, seen.baseline_until) if _in(e)]
    back_s = max(back, default=math.inf) - seen.repaired_at
    trial.found("back after the block", back_s, "s", f"<= {RECOVERY_S:g}")
    trial.found("failed", figures.failed(seen.since(seen.baseline_until)), "requests", "<= 0")


# --- Clients --------------------------------------------------------------------------------------


async def crowd_leaves(trial: Trial, options: Options, *, crowd: int = 500) -> None:
    """500 clients leave in the middle of their streams."""
    bed = trial.bed
    async with trial.under_load(options) as seen:
        leaving = await asyncio.gather(
            *(_begun_stream(bed.port) for _ in range(crowd)), return_exceptions=True
        )
        writers = [each for each in leaving if isinstance(each, asyncio.StreamWriter)]
        running = await _running_streams(bed)
        for writer in writers:
            writer.transport.abort()
        left = time.monotonic()

        async def all_cancelled() -> bool:
            # The other load's streams go on.
            return await _running_streams(bed) <= running - len(writers) + crowd // 50

        gone_s = await bed.until(all_cancelled, 10, "the streams are cancelled")
        seen.repaired_at = left
    trial.found("were in mid-stream", len(writers), "streams", f">= {crowd}")
    trial.found("cancelled at the generators after", gone_s * 1e3, "ms", "<= 500")
    _breakers_stayed_closed(trial, seen)


async def failing_and_retried(trial: Trial, options: Options) -> None:
    """The retriever fails every call while each client retries three times, at once."""
    retrying = Options(**(vars(options) | {"retries": 3}))
    async with trial.under_load(retrying) as seen:
        trial.bed.inject({"retriever": {"error": "UNAVAILABLE"}})
        await asyncio.sleep(FORM.fault_s)
        _over(trial.bed, seen)
    tries = len(seen.disturbed())
    attempts = sum(seen.attempts.get("retriever", {}).values())
    trial.found("tries of the clients", tries, "requests", note=f"{attempts:g} attempts in all")


async def overload(trial: Trial, options: Options, *, times: float) -> None:
    """More is asked than can be answered."""
    peak = 2 * options.rate
    mixed = Options(**(vars(options) | {"critical": 0.1, "batch": 0.2}))
    async with trial.under_load(mixed) as seen:
        await seen.load.rate(times * peak)
        begun = time.monotonic() + 1
        await asyncio.sleep(FORM.fault_s)
        ended = time.monotonic()
        await seen.load.rate(options.rate)
        _over(trial.bed, seen)
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


# --- Redis ----------------------------------------------------------------------------------------


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
        _over(trial.bed, seen)
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


# --- Change ---------------------------------------------------------------------------------------


async def rolling_restart(trial: Trial, options: Options) -> None:
    """Every replica of every service in turn, then the gateway."""
    bed = trial.bed
    async with trial.under_load(options, settle=False) as seen:
        for service in SERVICES:
            for replica in bed.services[service]:
                await replica.terminate()
                replica.start()
                await bed.until(partial(_listens, replica), START_S, f"{replica.name} listens")
                await bed.until(bed.all_serving, START_S, f"{replica.name} serves")
        old, bed.gateway = bed.gateway, bed.new_gateway()
        bed.gateway.start()
        await bed.until(partial(bed.answers, bed.gateway), START_S, "the new gateway answers")
        status = await old.terminate()
        _over(bed, seen)
    changed = seen.since(seen.baseline_until)
    trial.found("failed", figures.failed(changed), "requests", "<= 0", _reasons(changed))
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
        before = [await _texts(bed, replica) for replica in replicas]
        await asyncio.sleep(8)
        calls = [await _texts(bed, r) - was for r, was in zip(replicas, before, strict=True)]
        _over(bed, seen)
    fair = sum(calls) / len(calls)
    share = min(calls[1:]) / fair if fair else 0.0
    trial.found("of a fair share, the least used new one", 100 * share, "%", ">= 50", f"{calls}")
    trial.found("failed", figures.failed(seen.since(seen.baseline_until)), "requests", "<= 0")


async def clock_steps(trial: Trial, options: Options) -> None:
    """The wall clock of every process goes an hour forward, then an hour back."""
    async with trial.under_load(options) as seen:
        for seconds in (3600, -3600):
            trial.bed.step_clock(seconds)
            await asyncio.sleep(FORM.fault_s)
        _over(trial.bed, seen)
    changed = seen.disturbed()
    trial.found("failed", figures.failed(changed), "requests", "<= 0", _reasons(changed))
    trial.found("degraded", sum(bool(r.degraded) for r in changed), "requests", "<= 0")
    slower = figures.slowdown(changed, seen.baseline())
    trial.found("p99 against the baseline", slower, "", "<= 1.5")
    opened = _log_lines(trial.bed, '"breaker": "open"')
    trial.found("breakers that opened", opened, "", "<= 0")


# --- What the rows share --------------------------------------------------------------------------


def _kill_all(bed: Bed, service: str) -> None:
    for replica in bed.services[service]:
        replica.send(signal.SIGKILL)
    for replica in bed.services[service]:
        replica.kill()


def _over(bed: Bed, seen: Seen) -> None:
    """Every fault is repaired from now on."""
    bed.inject({})
    bed.step_clock(0)
    seen.repaired_at = time.monotonic()


async def _started_again(bed: Bed, seen: Seen, *replicas: Process) -> None:
    """Start them; repaired is when they serve, which is told from outside the gateway."""
    for replica in replicas:
        replica.start()
    for replica in replicas:
        await bed.until(partial(_listens, replica), START_S, f"{replica.name} listens")
    _over(bed, seen)


async def _listens(process: Process) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.close()
    return True


def _answered(trial: Trial, records: Sequence[Record]) -> None:
    share = figures.share(records, lambda record: record.outcome == "ok")
    note = f"{figures.outcomes(records)} {_reasons(records)}"
    trial.found("answered", 100 * share, "%", ">= 99.9", note)


def _reasons(records: Sequence[Record]) -> str:
    """The first failures, for whoever has to find out."""
    return "; ".join(
        f"{r.kind} {r.status} {r.code} {r.message}" for r in records if r.outcome != "ok"
    )[:200]


def _as_before_after_s(trial: Trial, seen: Seen, after_s: float) -> None:
    """Once the fault has been met, the others carry the load well."""
    later = seen.since(seen.baseline_until + after_s, seen.repaired_at)
    trial.found(
        f"p99 against the baseline, {after_s:g} s later", figures.slowdown(later, seen.baseline()),
        "", "<= 2", f"{figures.outcomes(later)}, p99 {figures.p99_s(later) * 1e3:.0f} ms",
    )  # fmt: skip


def _endpoint_events(bed: Bed, address: str, since: float) -> list[dict[str, Any]]:
    return [event for event in bed.events("endpoint", since) if event["address"] == address]


def _in(event: dict[str, Any]) -> bool:
    """Whether a replica takes calls after this event."""
    return bool(event["reach"] == "serving" and event["breaker"] == "closed")


def _taken_out_s(bed: Bed, address: str, since: float) -> float:
    """Seconds until the gateway sent nothing more to a replica, by its own word."""
    events = _endpoint_events(bed, address, since)
    return min((e["at"] - since for e in events if not _in(e)), default=math.inf)


def _breakers_stayed_closed(trial: Trial, seen: Seen) -> None:
    events = trial.bed.events("endpoint", seen.baseline_until)
    opened = [event["address"] for event in events if event["breaker"] == "open"]
    trial.found("breakers that opened", len(opened), "", "<= 0")


def _log_lines(bed: Bed, text: str) -> int:
    return (bed.folder / "gateway.log").read_text().count(text)


async def _attempts(trial: Trial, service: str) -> dict[str, float]:
    return (await trial.attempts()).get(service, {})


async def _running_streams(bed: Bed) -> float:
    """Answers that the generators are writing."""
    found = [await bed.metrics(replica) for replica in bed.services["generator"]]
    return sum(metrics["raglan_generator_running", ""] for metrics in found)


async def _texts(bed: Bed, replica: Process) -> float:
    """How many texts an embedder has embedded."""
    metrics = await bed.metrics(replica)
    return sum(
        v for (name, _), v in metrics.items() if name == "raglan_encoder_queue_seconds_count"
    )


async def _begun_stream(port: int) -> asyncio.StreamWriter:
    """A stream whose first token has come; close it yourself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"query": "What does it cost?", "stream": true}'
    head = f"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    try:
        async with asyncio.timeout(20):
            await reader.readuntil(b"event: delta")
    except (TimeoutError, OSError, EOFError):
        writer.close()
        raise
    return writer


async def _redis_command(redis: Process, command: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(command)
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()


# --- Any of it, at random -------------------------------------------------------------------------


async def at_random(trial: Trial, options: Options, *, seed: int) -> None:
    """Three faults, one upon the other, drawn by the seed."""
    bed, chance = trial.bed, random.Random(seed)
    async with trial.under_load(options) as seen:
        for _ in range(3):
            service, number = chance.choice(SERVICES), chance.randrange(2)
            replica, address = bed.services[service][number], bed.address(service, number)
            kind = chance.choice(
                ("kill", "stop", "block", "slow", "fail", "stall", "cut", "restart")
            )
            match kind:
                case "kill":
                    replica.kill()
                case "stop":
                    replica.send(signal.SIGSTOP)
                case "block":
                    replica.send(signal.SIGUSR1)
                case "restart" if replica.alive:
                    replica.send(signal.SIGTERM)
                case "slow":
                    bed.inject({f"{service}@{address}": {"latency_ms": chance.uniform(50, 2_000)}})
                case "fail":
                    failing = {"error": "UNAVAILABLE", "percent": chance.uniform(10, 100)}
                    bed.inject({f"{service}@{address}": failing})
                case "stall":
                    bed.inject({f"{service}@{address}": {"stall": True, "percent": 50}})
                case "cut":
                    bed.inject({"generator": {"cut_after": chance.randrange(8)}})
            trial.notes.append(f"{kind} {service}-{number}")
            await asyncio.sleep(chance.uniform(0.5, FORM.fault_s))
            if chance.random() < 0.5:
                bed.inject({})
        for replica in bed.processes():
            replica.send(signal.SIGCONT)
        await _started_again(bed, seen, *bed.processes())


# --- The table ------------------------------------------------------------------------------------

_LONG_STREAMS = Setup(
    variables=(
        ("generator", "RAGLAN_GENERATOR_NULL_TOKENS", "60"),
        ("generator", "RAGLAN_GENERATOR_NULL_TOKEN_MS", "1000"),
    )
)
_REDIS = Setup(redis=True)

TABLE: tuple[Scenario, ...] = (
    *(
        Scenario(f"kill_{each}", partial(kill_one, service=each), short=each == "generator")
        for each in SERVICES
    ),
    *(
        Scenario(f"all_{each}s_down", partial(all_down, service=each), short=each == "reranker")
        for each in ("embedder", "reranker")
    ),
    Scenario("retriever_down", retriever_down),
    Scenario("generator_down", generator_down),
    Scenario("generator_dies", generator_dies, short=True),
    *(Scenario(f"stop_{each}", partial(stop_one, service=each)) for each in SERVICES),
    *(Scenario(f"slow_{each}", partial(slow_one, service=each)) for each in SERVICES),
    Scenario("all_slower", all_slower),
    Scenario("black_hole", black_hole, Setup(proxied=("embedder", "generator"))),
    Scenario("crowd_leaves", crowd_leaves, _LONG_STREAMS),
    *(
        Scenario(f"redis_{how}", partial(redis_fails, how=how), _REDIS)
        for how in ("refuses", "hangs", "flushed")
    ),
    *(Scenario(f"overload_{times}x", partial(overload, times=times)) for times in (2, 5, 10)),
    Scenario("failing_and_retried", failing_and_retried, short=True),
    Scenario("rolling_restart", rolling_restart),
    Scenario("scale_up", scale_up, Setup(single=("embedder",), spare=(("embedder", 2),))),
    Scenario("clock_steps", clock_steps, Setup(clock=True)),
    Scenario("blocked_loop", blocked_loop),
    *(Scenario(f"random_{seed}", partial(at_random, seed=seed)) for seed in range(1, 21)),
)
