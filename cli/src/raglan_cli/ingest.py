"""`raglan ingest`: files and folders into a collection."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from raglan_cli import documents, files, jobs
from raglan_cli.client import (
    CollectionOption,
    Gateway,
    JsonOption,
    Refused,
    UrlOption,
    documents_path,
    find_url,
)
from raglan_cli.failure import FAILED, INTERRUPTED, Failure, UsageFailure
from raglan_cli.files import LazyFile, Selection, SourceFile
from raglan_cli.jobs import Outcome
from raglan_cli.screen import err, out, plain, print_json

_ABOUT_A_FILE: Final = frozenset(
    {httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.REQUEST_ENTITY_TOO_LARGE}
)
"""Statuses that a single file of a request may be the cause of."""

_SHOWN: Final = 20
"""How many failures or skipped files a summary lists; --json lists all."""


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files and folders. Folders are searched for files of known types."),
    ],
    collection: CollectionOption = "default",
    json: JsonOption = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once everything is uploaded.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete documents of the given folders whose files are gone."),
    ] = False,
    url: UrlOption = None,
) -> None:
    """Put documents into a collection, which is made if it does not exist.

    A document is called by the name of the folder that was given and the path below it; one of the
    same name is replaced. The same bytes twice are stored once. A document that fails does so
    alone: its reason is shown and the exit status is 1.

    Examples:

      raglan ingest docs/ --collection handbook

      raglan ingest docs/ --collection handbook --prune

      raglan ingest report.pdf notes.md --json | jq .failed
    """
    began = time.monotonic()
    selection = files.select(paths)
    if not selection.files and not selection.unreadable:
        raise UsageFailure(_nothing_found(paths, selection))
    with Gateway(find_url(url)) as gateway, bars(quiet=json) as shown:
        gateway.create_collection(collection)
        upload = Upload(gateway, collection, shown)
        upload.send_all(selection.files)
        if no_wait:
            outcome = Outcome(jobs=[{"id": job, "status": "queued"} for job in upload.job_ids])
        else:
            outcome = _follow(gateway, upload.job_ids, shown)
        removed = documents.prune(gateway, collection, selection) if prune else []
    outcome.failed += [
        {"document": name, "reason": reason}
        for name, reason in [*selection.unreadable, *upload.refused]
    ]
    seconds = round(time.monotonic() - began, 2)
    report = {"collection": collection, **asdict(outcome), "skipped": selection.skipped}
    report["removed"] = removed
    report["seconds"] = seconds
    if json:
        print_json(report)
    else:
        _show(report, waited=not no_wait)
    if outcome.failed:
        raise SystemExit(FAILED)


def _follow(gateway: Gateway, job_ids: Sequence[str], shown: Bars) -> Outcome:
    try:
        return jobs.follow(gateway, job_ids, shown.show_stages)
    except KeyboardInterrupt:
        raise Failure(
            "No longer watching. The mesh goes on with what was uploaded; cancel it with: "
            + ", ".join(f"POST {gateway.url}/v1/jobs/{job_id}/cancel" for job_id in job_ids),
            status=INTERRUPTED,
        ) from None


class Upload:
    """Sends files in bounded requests; a request refused for one file goes on without it."""

    def __init__(self, gateway: Gateway, collection: str, bars: Bars) -> None:
        self.job_ids: list[str] = []
        self.refused: list[tuple[str, str]] = []
        """(name, reason)."""
        self._gateway = gateway
        self._path = documents_path(collection)
        self._bars = bars

    def send_all(self, sources: Sequence[SourceFile]) -> None:
        """Send `sources` in their order."""
        self._bars.expect_upload(sum(source.size for source in sources))
        for batch in files.batches(sources):
            self._send(batch)

    def _send(self, batch: Sequence[SourceFile]) -> None:
        try:
            self.job_ids.append(self._post(batch))
        except Refused as refused:
            if refused.http not in _ABOUT_A_FILE:
                raise
            self._send_halves(batch, refused.message)
        except OSError as error:
            self._send_halves(batch, f"It cannot be read: {error.strerror}.")

    def _send_halves(self, batch: Sequence[SourceFile], reason: str) -> None:
        """Find the file at fault by halving, so that the others still arrive."""
        if len(batch) == 1:
            self.refused.append((batch[0].name, reason))
            return
        middle = len(batch) // 2
        self._send(batch[:middle])
        self._send(batch[middle:])

    def _post(self, batch: Sequence[SourceFile]) -> str:
        parts = [("files", (s.name, LazyFile(s, self._bars.uploaded), _type(s))) for s in batch]
        # Sending the same bytes again changes nothing, so an overloaded gateway may be asked twice.
        reply = self._gateway.call_patiently("POST", self._path, files=parts)
        return str(reply["job_id"])


class Bars:
    """One progress bar a stage: upload in MiB, the others in documents or chunks."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {
            stage: progress.add_task(stage, total=None) for stage in ("upload", *jobs.STAGES)
        }
        self._sent = 0

    def expect_upload(self, size: int) -> None:
        """The upload will be `size` bytes."""
        self._progress.update(self._bars["upload"], total=round(size / 2**20, 1))

    def uploaded(self, size: int) -> None:
        """`size` more bytes are on their way."""
        self._sent += size
        self._progress.update(self._bars["upload"], completed=round(self._sent / 2**20, 1))

    def show_stages(self, stages: Mapping[str, tuple[int, int]]) -> None:
        """Stage -> (done, total)."""
        for stage, (done, total) in stages.items():
            self._progress.update(self._bars[stage], completed=done, total=total)


@contextmanager
def bars(*, quiet: bool) -> Iterator[Bars]:
    """Bars in a terminal; nothing elsewhere, or when `quiet`."""
    progress = Progress(
        TextColumn("{task.description:>6}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )
    with progress:
        yield Bars(progress)


def _type(source: SourceFile) -> str:
    """The media type that the suffix stands for; the ingester decides by name and content."""
    return mimetypes.guess_type(source.name)[0] or "application/octet-stream"


def _nothing_found(paths: Sequence[Path], selection: Selection) -> str:
    where = ", ".join(map(str, paths))
    if not selection.skipped:
        return f"There are no files in {where} (hidden ones are not looked at)."
    return (
        f"None of the {len(selection.skipped)} files in {where} is of a known type, "
        f"e.g. {selection.skipped[0]}. Name a file itself to send it all the same."
    )


def _show(report: Mapping[str, Any], *, waited: bool) -> None:
    collection, failed, skipped = report["collection"], report["failed"], report["skipped"]
    if waited:
        out.print(
            f"{report['documents']} documents sent to [bold]{collection}[/]: "
            f"{report['chunks']} chunks indexed, {report['unchanged']} unchanged, "
            f"{_counted(report)}{len(failed)} failed, in {report['seconds']:.1f} s"
        )
    else:
        out.print(f"Uploaded to [bold]{collection}[/]; the work goes on in the background:")
        for job in report["jobs"]:
            out.print(f"  job {job['id']}")
    if skipped:
        more = f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        names = ", ".join(skipped[:_SHOWN])
        text = f"Skipped {len(skipped)} of unknown type: {names}{more}"
        out.print(Text(plain(text), style="dim"))
    _show_warnings(report["warnings"], report["warning_count"])
    for failure in failed[:_SHOWN]:
        text = f"{plain(failure['document'])}: {plain(failure['reason'])}"
        err.print(Text(text, style="red"))
    if len(failed) > _SHOWN:
        err.print(f"... and {len(failed) - _SHOWN} more (--json lists them all)", style="red")


def _counted(report: Mapping[str, Any]) -> str:
    """The counts of a report that are shown only when they are not 0."""
    counts = {"replaced": report["replaced"], "removed": len(report["removed"])}
    return "".join(f"{count} {what}, " for what, count in counts.items() if count)


def _show_warnings(warnings: Sequence[Mapping[str, str]], count: int) -> None:
    for warning in warnings[:_SHOWN]:
        about = f"{plain(warning['document'])}: " if warning["document"] else ""
        err.print(Text(f"{about}{plain(warning['message'])}", style="yellow"))
    if count > _SHOWN:
        err.print(f"... and {count - _SHOWN} more warnings (GET /v1/jobs/ID)", style="yellow")
