"""`raglan list` and `raglan delete`: the documents of a collection, by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from raglan_cli.client import (
    CollectionOption,
    Gateway,
    JsonOption,
    UrlOption,
    documents_path,
    find_url,
)
from raglan_cli.failure import FAILED
from raglan_cli.files import Selection, is_gone
from raglan_cli.orientation import about_empty, naming_others
from raglan_cli.screen import counted, err, one_line, out, print_json

_PAGE: Final = 1000
_BATCH: Final = 200
"""Documents to delete in one request, so that it ends well within its time."""


def list_documents(
    collection: CollectionOption = "default", json: JsonOption = False, url: UrlOption = None
) -> None:
    """Show the documents of a collection.

    Examples:

      raglan list --collection handbook

      raglan list --json | jq -r '.documents[] | select(.status == "failed") | .id'
    """
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        found = list(stored(gateway, collection))
        empty = "" if found or json else about_empty(gateway, collection)
    if json:
        print_json({"collection": collection, "documents": found})
        return
    if not found:
        out.print(empty or f"There are no documents in {collection}.")
        return
    print_table(found)


def print_table(found: Iterable[Mapping[str, Any]]) -> None:
    """Print documents, a line each."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading, side in (("document", "left"), ("status", "left"), ("chunks", "right")):
        grid.add_column(heading, justify=side)  # type: ignore[arg-type]
    grid.add_column("")
    for document in found:
        reason = one_line(document.get("error") or "", 100)
        grid.add_row(document["id"], document["status"], str(document["chunk_count"]), reason)
    out.print(grid)


def delete(
    document_ids: Annotated[
        list[str], typer.Argument(help="Ids as `raglan list` shows them.", metavar="ID")
    ],
    collection: CollectionOption = "default",
    url: UrlOption = None,
) -> None:
    """Delete documents from a collection: their text, their chunks and their original bytes.

    Examples:

      raglan delete docs/old.md --collection handbook
    """
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        chunks, missing = remove(gateway, collection, document_ids)
    if deleted := len(set(document_ids)) - len(missing):
        out.print(f"Deleted {counted(deleted, 'document')} ({counted(chunks, 'chunk')}).")
    for document_id in missing:
        err.print(f"There is no document {document_id} in {collection}.", style="red")
    if missing:
        raise SystemExit(FAILED)


def stored(gateway: Gateway, collection: str, filter_json: str = "") -> Iterator[dict[str, Any]]:
    """Every document of a collection that passes a filter, by id, without its text."""
    after = ""
    while True:
        params: dict[str, str | int] = {"limit": _PAGE, "after": after}
        if filter_json:
            params["filter"] = filter_json
        page = gateway.call_patiently("GET", documents_path(collection), params=params)
        yield from page["documents"]
        after = page["next_after"] or ""
        if not after:
            return


def remove(gateway: Gateway, collection: str, document_ids: Sequence[str]) -> tuple[int, list[str]]:
    """Delete documents: how many chunks they had, and the ids that do not exist."""
    chunks = 0
    missing: list[str] = []
    ids = list(dict.fromkeys(document_ids))
    for begin in range(0, len(ids), _BATCH):
        # In the body: in a path, the id ".." would name the collection.
        gone = gateway.call_patiently(
            "POST",
            f"{documents_path(collection)}/delete",
            json={"ids": ids[begin : begin + _BATCH]},
        )
        chunks += gone["deleted_chunks"]
        missing += gone["missing_ids"]
    return chunks, missing


def gone(held: Iterable[Mapping[str, Any]], selection: Selection) -> list[str]:
    """The ids of documents that came from the selected folders and whose files do not exist."""
    there = {file.name for file in selection.files} | {name for name, _ in selection.skipped}
    return [
        document["id"]
        for document in held
        for name, folder in selection.folders.items()
        if document["id"].startswith(name)
        and document["id"] not in there
        and is_gone(folder / document["id"].removeprefix(name))
    ]


def prune(gateway: Gateway, collection: str, selection: Selection) -> list[str]:
    """Delete the documents of the selected folders whose files are gone.

    A file that is there and was not sent, because it cannot be read or is left out, keeps its
    document.

    Returns:
        The ids of the deleted documents.
    """
    ids = gone(stored(gateway, collection), selection)
    remove(gateway, collection, ids)
    return ids
