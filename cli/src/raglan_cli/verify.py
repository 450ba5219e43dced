"""`raglan verify`: whether a running deployment does what it should, and what is wrong if not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from raglan_cli.client import Gateway, JsonOption, find_url
from raglan_cli.failure import FAILED, INTERRUPTED, Failure, UsageFailure
from raglan_cli.screen import err, out, print_json
from raglan_cli.verification import (
    SERVING,
    Check,
    Result,
    failed,
    gpu,
    passed,
    skipped,
    status_checks,
)
from raglan_cli.verification.trial import Trial

_LOOKS: Final = 3
_COLOURS: Final = {Result.OK: "green", Result.FAILED: "bold red", Result.SKIPPED: "dim"}


def verify(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            envvar="RAGLAN_URL",
            help="The gateway. Default: the one `raglan up` runs here.",
        ),
    ] = None,
    required_gpu: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu",
            metavar="SERVICE",
            help=f"Fail unless it uses a GPU: {', '.join(gpu.SERVICES)}. May be repeated.",
        ),
    ] = None,
    limit: Annotated[
        float, typer.Option("--limit", min=1, help="Seconds for the document, and for the answer.")
    ] = 120,
    json: JsonOption = False,
) -> None:
    """Check a running deployment: services, GPUs, databases, clocks, one document, one trace.

    A document of its own goes into a collection of its own, which is deleted again. Exit status 0
    if nothing failed, 1 if something did.

    Examples:

      raglan verify

      raglan verify https://rag.example.com --gpu embedder --gpu reranker

      raglan verify --json | jq '.checks[] | select(.result == "failed")'
    """
    required = required_gpu or []
    if unknown := [each for each in required if each not in gpu.SERVICES]:
        raise UsageFailure(
            f"--gpu {unknown[0]}: no such service uses a GPU; there are {', '.join(gpu.SERVICES)}."
        )
    address = find_url(url)
    checks: list[Check] = []
    interrupted = False
    try:
        with _terminable(), Gateway(address, read_s=limit) as gateway:
            for check in run(gateway, required, limit_s=limit):
                checks.append(check)
                if not json:
                    _show(check)
    except KeyboardInterrupt:
        interrupted = True
        checks.append(failed("verify", "It was interrupted.", "Run it again."))
    is_well = all(check.result is not Result.FAILED for check in checks)
    if json:
        print_json({"url": address, "ok": is_well, "checks": [c.document() for c in checks]})
    else:
        _conclude(checks)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if not is_well:
        raise typer.Exit(FAILED)


def run(gateway: Gateway, required: Sequence[str], *, limit_s: float) -> Iterator[Check]:
    """Make every check, and yield each as it ends. Without a gateway the first is the last."""
    began, asked_at = time.monotonic(), time.time()
    try:
        status = _status(gateway)
    except Failure as failure:
        yield failed("gateway", failure.message, "Is the URL right, and does the gateway run?")
        return
    answered_at = time.time()
    rows = status["services"]
    first = passed("gateway", f"Version {status['version']} answers at {gateway.url}.")
    yield replace(first, ms=(time.monotonic() - began) * 1e3)
    yield from status_checks.of_services(rows)
    yield from gpu.of_devices(rows, required)
    yield from status_checks.of_dependencies(rows)
    yield status_checks.of_clocks(status, asked_at, answered_at)
    yield status_checks.of_wire(rows)
    trial = Trial(gateway, limit_s=limit_s)
    yield _timed("document", trial.run)
    if trial.trace_id:
        yield _timed("trace", trial.trace)
    else:
        yield skipped("trace", "No question was answered that could have one.")


def _status(gateway: Gateway) -> dict[str, Any]:
    """The mesh as its gateway sees it, once each serving process has told of itself.

    Raises:
        Failure: nothing answers there, or something that is no gateway of this kind.
    """
    for _ in range(_LOOKS):  # a busy process may miss the second that the gateway gives it
        found: dict[str, Any] = gateway.call("GET", "/v1/status")
        if not isinstance(found, dict) or not isinstance(found.get("services"), list):
            raise Failure(f"What answers at {gateway.url} is not a Raglan gateway.")
        if "time" not in found:
            raise Failure(
                f"The gateway at {gateway.url} is version {found.get('version', 'unknown')}, "
                "older than raglan verify. Use the command of its version, or upgrade it."
            )
        told = [row.get("version") for row in found["services"] if row["state"] == SERVING]
        if all(told):
            break
    return found


def _timed(name: str, work: Callable[[], Check]) -> Check:
    """The check that `work` makes, with its duration; a refused request is its failure."""
    began = time.monotonic()
    try:
        check = work()
    except Failure as failure:
        check = failed(name, failure.message, "The log of the service that it names says more.")
    return replace(check, ms=(time.monotonic() - began) * 1e3)


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM ends the work as Ctrl-C does: what was made is deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(check: Check) -> None:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=14)
    row.add_column(width=7)
    row.add_column(width=9, justify="right")
    row.add_column(overflow="fold")
    duration = f"{check.ms:,.0f} ms" if check.ms else ""
    state = Text(check.result.value, style=_COLOURS[check.result])
    row.add_row(check.name, state, duration, check.reason)
    if check.remedy:
        row.add_row("", "", "", Text(f"-> {check.remedy}", style="yellow"))
    out.print(row)


def _conclude(checks: Iterable[Check]) -> None:
    bad = [check.name for check in checks if check.result is Result.FAILED]
    if bad:
        err.print(f"Failed: {', '.join(bad)}.", style="bold red")
    else:
        err.print("All is well.", style="green")
