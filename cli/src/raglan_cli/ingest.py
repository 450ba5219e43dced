"""`raglan ingest`: files and folders into a collection."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from raglan.chunking_strategy import ChunkingStrategy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from raglan_cli import documents, files, jobs, metadata, preview
from raglan_cli.client import CollectionOption, Gateway, JsonOption, UrlOption, find_url
from raglan_cli.failure import FAILED, INTERRUPTED, Failure, UsageFailure
from raglan_cli.files import Selection
from raglan_cli.ignoring import Choice
from raglan_cli.jobs import Outcome
from raglan_cli.screen import counted, err, out, print_json
from raglan_cli.upload import Upload

_SHOWN: Final = 20
"""Failures, warnings or deleted documents that a summary lists at most; --json lists all."""

_SHOWN_SKIPPED: Final = 5
"""Skipped files of one reason that a summary lists at most; --json lists all."""


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Files and folders. Folders are searched for files of known types."
        ),
    ],
    collection: CollectionOption = "default",
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Of folders, only files that match; as in .gitignore, relative to the folder. "
            "May be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Of folders, leave out files and folders that match. May be repeated.",
        ),
    ] = None,
    gitignore: Annotated[
        bool,
        typer.Option(
            "--gitignore/--no-gitignore", help="Whether to leave out what .gitignore files name."
        ),
    ] = True,
    metadata_options: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="KEY=VALUE",
            help="A text for every document, to filter by; KEY:=VALUE for a number, true, false "
            "or other JSON. May be repeated.",
        ),
    ] = None,
    access: Annotated[
        list[str] | None,
        typer.Option(
            "--access",
            metavar="TAG",
            help="An access tag: only keys with one of a document's tags find it. May be repeated.",
        ),
    ] = None,
    chunking: Annotated[
        ChunkingStrategy | None,
        typer.Option(
            "--chunking",
            help="How a collection that is made now cuts its documents; see raglan chunks.",
        ),
    ] = None,
    contextual: Annotated[
        bool,
        typer.Option(
            "--contextual",
            help="A collection that is made now has a language model write a sentence for each "
            "chunk that situates it in its document.",
        ),
    ] = False,
    versions: Annotated[
        int | None,
        typer.Option(
            "--versions",
            min=1,
            max=1_000,
            help="How many earlier versions of a document a collection that is made now keeps, for "
            "searches --as-of. Default: none.",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete documents of the given folders whose files are gone."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be sent and deleted, and change nothing."),
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once everything is uploaded.")
    ] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Put documents into a collection, which is made if it does not exist.

    A document is called by the name of the folder that was given and the path below it; one of the
    same name is replaced. The same bytes twice are stored once. Hidden files, what .gitignore files
    name, and links that lead out of a folder are left out. A document that fails does so alone: its
    reason is shown and the exit status is 1.

    Examples:

      raglan ingest docs/ --collection handbook

      raglan ingest docs/ --collection handbook --prune --dry-run

      raglan ingest . --include '*.md' --exclude drafts/ --metadata team=search

      raglan ingest report.pdf notes.md --json | jq .failed
    """
    began = time.monotonic()
    fields = metadata.parse(metadata_options or ())
    selection = files.select(paths, Choice(include or (), exclude or (), gitignore))
    if not selection.files and not selection.unreadable:
        raise UsageFailure(_nothing_found(paths, selection))
    if dry_run:
        with Gateway(find_url(url)) as gateway:
            preview.show(gateway, collection, selection, fields, prune=prune, json=json)
        return
    with Gateway(find_url(url)) as gateway, bars(quiet=json) as shown:
        gateway.create_collection(
            collection, chunking and str(chunking), versions, contextual=contextual
        )
        upload = Upload(gateway, collection, shown.uploaded, fields, access)
        shown.expect_upload(sum(source.size for source in selection.files))
        try:
            upload.send_all(selection.files)
            outcome = _outcome(gateway, upload, shown, wait=not no_wait)
            removed = documents.prune(gateway, collection, selection) if prune else []
        except (KeyboardInterrupt, Failure) as error:
            raise _ended_early(error, gateway, upload, len(selection.files)) from None
    outcome.failed += [
        {"document": name, "reason": reason}
        for name, reason in [*selection.unreadable, *upload.refused]
    ]
    report = {"collection": collection, **asdict(outcome)}
    report["skipped"] = [{"document": n, "reason": reason} for n, reason in selection.skipped]
    report["removed"] = removed
    report["seconds"] = round(time.monotonic() - began, 2)
    if json:
        print_json(report)
    else:
        _show(report, waited=not no_wait)
    if outcome.failed:
        raise SystemExit(FAILED)


def _outcome(gateway: Gateway, upload: Upload, shown: Bars, *, wait: bool) -> Outcome:
    if wait:
        return jobs.follow(gateway, upload.job_ids, shown.show_stages)
    return Outcome(jobs=[{"id": job, "status": "queued"} for job in upload.job_ids])


def _ended_early(error: BaseException, gateway: Gateway, upload: Upload, selected: int) -> Failure:
    """The end of the command before its work was done, with the jobs that go on without it."""
    failure = error if isinstance(error, Failure) else Failure("Interrupted.", status=INTERRUPTED)
    accepted = sum(job.files for job in upload.accepted)
    if not accepted:
        return failure
    lines = [
        f"{failure.message} Accepted before: {accepted} of {selected} files. The mesh continues "
        "with them:",
        *(f"  job {job.id} ({counted(job.files, 'file')})" for job in upload.accepted),
        f"To cancel one: curl -X POST {gateway.url}/v1/jobs/ID/cancel",
    ]
    details = {"accepted": [asdict(job) for job in upload.accepted]}
    return Failure("\n".join(lines), status=failure.status, envelope=failure.document | details)


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


def _nothing_found(paths: Sequence[Path], selection: Selection) -> str:
    where = ", ".join(map(str, paths))
    if not selection.skipped:
        return f"There are no files in {where} (hidden ones are not looked at)."
    name, reason = selection.skipped[0]
    return (
        f"There is nothing to send in {where}: {counted(len(selection.skipped), 'path')} skipped, "
        f"e.g. {name} ({reason}). Name a file itself to send it all the same."
    )


def _show(report: Mapping[str, Any], *, waited: bool) -> None:
    collection, failed = report["collection"], report["failed"]
    if waited:
        out.print(
            Text.assemble(
                f"{counted(report['documents'], 'document')} sent to ",
                (collection, "bold"),
                f": {counted(report['chunks'], 'chunk')} indexed, {report['unchanged']} unchanged, "
                f"{_rare_counts(report)}{len(failed)} failed, in {report['seconds']:.1f} s",
            )
        )
    else:
        out.print(f"Uploaded to {collection}; indexing continues in the background:")
        for job in report["jobs"]:
            out.print(f"  job {job['id']}")
    show_skipped(report["skipped"])
    for document in report["removed"][:_SHOWN]:
        out.print(f"Deleted {document}, whose file is gone.", style="dim")
    _say_how_many_more(len(report["removed"]), "deleted")
    _show_warnings(report["warnings"], report["warning_count"])
    for failure in failed[:_SHOWN]:
        err.print(f"{failure['document']}: {failure['reason']}", style="red")
    _say_how_many_more(len(failed), "failed")


def show_skipped(skipped: Sequence[Mapping[str, str]]) -> None:
    """A line for each reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in skipped:
        by_reason[each["reason"]].append(each["document"])
    for reason, names in by_reason.items():
        more = len(names) - _SHOWN_SKIPPED
        listed = ", ".join(names[:_SHOWN_SKIPPED]) + (f" and {more} more" if more > 0 else "")
        out.print(f"Skipped {len(names)} ({reason}): {listed}", style="dim")


def _rare_counts(report: Mapping[str, Any]) -> str:
    """The counts that are shown only where they are not 0."""
    counts = {"replaced": report["replaced"], "deleted": len(report["removed"])}
    return "".join(f"{count} {what}, " for what, count in counts.items() if count)


def _say_how_many_more(count: int, what: str) -> None:
    if count > _SHOWN:
        err.print(f"... and {count - _SHOWN} more {what}; --json lists them all.", style="red")


def _show_warnings(warnings: Sequence[Mapping[str, str]], count: int) -> None:
    for warning in warnings[:_SHOWN]:
        about = f"{warning['document']}: " if warning["document"] else ""
        err.print(f"{about}{warning['message']}", style="yellow")
    if count > _SHOWN:
        err.print(
            f"... and {count - _SHOWN} more warnings; --json lists the first of each job.",
            style="yellow",
        )
