"""`raglan documents`: list, show, tag and delete stored documents, by id or by filter."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from raglan_cli import jobs, metadata, screen
from raglan_cli.client import (
    CollectionOption,
    Gateway,
    JsonOption,
    UrlOption,
    documents_path,
    find_url,
    segment,
)
from raglan_cli.documents import print_table, remove
from raglan_cli.documents import stored as stored_documents
from raglan_cli.failure import FAILED, UsageFailure
from raglan_cli.orientation import naming_others
from raglan_cli.screen import counted, err, out

app = typer.Typer(
    no_args_is_help=True, help="Stored documents: list, show, tag and delete, by id or by filter."
)
_SHOWN_CHARS: Final = 2_000

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Documents, by their ids.")
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help="KEY=VALUE, KEY:=JSON, or a whole filter as JSON; several must all hold.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Count the documents that match, and change none.")
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Allow a filter that matches every document.")
]


@app.command("list")
def list_documents(
    filters: FilterOption = None,
    collection: CollectionOption = "default",
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the documents of a collection that match.

    Examples:

      raglan documents list --filter team=search --collection handbook
    """
    wanted = _filter(filters)
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        text = json_text.dumps(wanted) if wanted else ""
        found = list(stored_documents(gateway, collection, text))
    if json:
        screen.print_json({"collection": collection, "documents": found})
    elif found:
        print_table(found)
    else:
        out.print(f"No document of {collection} matches." if wanted else "There are no documents.")


@app.command()
def show(
    document_id: Annotated[str, typer.Argument(metavar="ID")],
    version: Annotated[
        int, typer.Option("--version", min=0, help="Number of the version. Default: the present.")
    ] = 0,
    collection: CollectionOption = "default",
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show a document: its metadata, its access tags, and the beginning of its text."""
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        path = f"{documents_path(collection)}/{segment(document_id)}"
        found = gateway.call("GET", path, params={"version": version})
    if json:
        screen.print_json(found)
        return
    out.print(f"{found['id']} ({found['title']})")
    out.print(f"  status    {found['status']}, {counted(found['chunk_count'], 'chunk')}")
    out.print(f"  metadata  {json_text.dumps(found['metadata'], ensure_ascii=False)}")
    out.print(f"  access    {', '.join(found['access']) or 'every caller'}")
    text = found["text"]
    out.print(f"\n{text[:_SHOWN_CHARS]}{' ...' if len(text) > _SHOWN_CHARS else ''}")


@app.command()
def versions(
    document_id: Annotated[str, typer.Argument(metavar="ID")],
    collection: CollectionOption = "default",
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the versions of a document that are kept, the newest first."""
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        path = f"/v1/collections/{segment(collection)}/versions/{segment(document_id)}"
        found = gateway.call("GET", path)
    if json:
        screen.print_json(found)
        return
    for each in found["versions"]:
        until = each["valid_to"] or "now"
        out.print(f"{each['version']:>4}  {each['valid_from']}  to  {until}  {each['title']}")
    if not found["versions"]:
        out.print(f"{collection} keeps no versions of its documents.")


@app.command()
def tag(
    document_ids: IdsArgument = None,
    filters: FilterOption = None,
    metadata_options: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", help="KEY=VALUE, or KEY:=JSON; KEY:=null removes it."),
    ] = None,
    add: Annotated[list[str] | None, typer.Option("--add-access", help="A tag to add.")] = None,
    remove_tags: Annotated[
        list[str] | None, typer.Option("--remove-access", help="A tag to remove.")
    ] = None,
    dry_run: DryRunOption = False,
    everything: AllOption = False,
    collection: CollectionOption = "default",
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Change metadata and access tags of documents; nothing is embedded again.

    Examples:

      raglan documents tag guide.md --metadata team=search

      raglan documents tag --filter team=people --add-access hr --dry-run
    """
    fields = metadata.parse(metadata_options or ())
    body: dict[str, Any] = {"add_access": add or [], "remove_access": remove_tags or []}
    if fields:
        body["metadata"] = fields
    wanted = _which(document_ids, filters)
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        _by_filter(gateway, collection, "tag", body | wanted, dry_run, everything, json)


@app.command()
def delete(
    document_ids: IdsArgument = None,
    filters: FilterOption = None,
    dry_run: DryRunOption = False,
    everything: AllOption = False,
    collection: CollectionOption = "default",
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Delete documents, with their text, their chunks and the answers kept of them.

    Examples:

      raglan documents delete --filter team=search --dry-run
    """
    wanted = _which(document_ids, filters)
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        if not document_ids or dry_run:
            _by_filter(gateway, collection, "delete", wanted, dry_run, everything, json)
            return
        chunks, missing = remove(gateway, collection, document_ids)
    if json:
        screen.print_json({"deleted_chunks": chunks, "missing_ids": missing})
    else:
        deleted = len(set(document_ids)) - len(missing)
        out.print(f"Deleted {counted(deleted, 'document')} ({counted(chunks, 'chunk')}).")
    if missing:
        err.print(f"Not in {collection}: {', '.join(missing)}", style="red")
        raise SystemExit(FAILED)


def _by_filter(
    gateway: Gateway,
    collection: str,
    change: str,
    body: Mapping[str, Any],
    dry_run: bool,
    everything: bool,
    json: bool,
) -> None:
    sent = {**body, "dry_run": dry_run, "all": everything}
    found = gateway.call("POST", f"{documents_path(collection)}/{change}", json=sent)
    least = "" if found["is_exact"] else "at least "
    if not found["job_id"]:
        if json:
            screen.print_json(found)
        else:
            out.print(f"{least}{counted(found['matches'], 'document')} match; nothing was changed.")
            for id_ in found["document_ids"]:
                out.print(f"  {id_}")
        return
    done = jobs.follow(gateway, [found["job_id"]], lambda stages: None)
    job = gateway.job(found["job_id"])
    changed = job["stages"].get(change, {"done": 0})["done"]
    if json:
        screen.print_json({**found, "job": job})
    else:
        verb = "Deleted" if change == "delete" else "Tagged"
        out.print(f"{verb} {counted(changed, 'document')}.")
        for warning in done.warnings:
            err.print(f"{warning['document'] or 'The job'}: {warning['message']}", style="red")
    if job["status"] != "succeeded":
        raise SystemExit(FAILED)


def _which(document_ids: list[str] | None, filters: list[str] | None) -> dict[str, Any]:
    """Return the filter of the documents that a command names.

    Raises:
        UsageFailure: it names none, or names them in both ways.
    """
    wanted = _filter(filters)
    if bool(document_ids) == bool(wanted):
        raise UsageFailure("Name documents by their ids, or by --filter; one of the two.")
    if document_ids:
        wanted = {"in": {"field": "document_id", "values": document_ids}}
    return {"filter": wanted}


def _filter(options: list[str] | None) -> dict[str, Any] | None:
    clauses: list[dict[str, Any]] = []
    for option in options or ():
        if option.lstrip().startswith("{"):
            try:
                clauses.append(json_text.loads(option))
            except ValueError:
                raise UsageFailure(f"--filter {option}: it is no JSON.") from None
        else:
            fields = metadata.parse([option])
            clauses += [{"eq": {"field": key, "value": value}} for key, value in fields.items()]
    return clauses[0] if len(clauses) == 1 else {"and": clauses} if clauses else None
