"""`raglan list` and `raglan delete`: the documents of a collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from raglan_cli.client import (
    CollectionOption,
    Gateway,
    JsonOption,
    Refused,
    UrlOption,
    documents_path,
    find_url,
    segment,
)
from raglan_cli.failure import FAILED
from raglan_cli.files import Selection
from raglan_cli.screen import err, out, plain, print_json

_PAGE: Final = 1000
_NOT_FOUND: Final = 404


def list_documents(
    collection: CollectionOption = "default", json: JsonOption = False, url: UrlOption = None
) -> None:
    """Show the documents of a collection.

    Examples:

      raglan list --collection handbook

      raglan list --json | jq -r '.documents[] | select(.status == "failed") | .id'
    """
    with Gateway(find_url(url)) as gateway:
        found = list(stored(gateway, collection))
    if json:
        print_json({"collection": collection, "documents": found})
        return
    if not found:
        out.print(Text(f"There are no documents in {plain(collection)}."))
        return
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading, side in (("document", "left"), ("status", "left"), ("chunks", "right")):
        grid.add_column(heading, justify=side)  # type: ignore[arg-type]
    for document in found:
        grid.add_row(Text(plain(document["id"])), document["status"], str(document["chunk_count"]))
    out.print(grid)


def delete(
    document_ids: Annotated[
        list[str], typer.Argument(help="Ids as `raglan list` shows them.", metavar="ID...")
    ],
    collection: CollectionOption = "default",
    url: UrlOption = None,
) -> None:
    """Delete documents from a collection: their text, their chunks and their original bytes.

    Examples:

      raglan delete docs/old.md --collection handbook
    """
    missing = 0
    with Gateway(find_url(url)) as gateway:
        for document_id in document_ids:
            try:
                deleted = remove(gateway, collection, document_id)
            except Refused as refused:
                if refused.http != _NOT_FOUND:
                    raise
                missing += 1
                err.print(Text(plain(refused.message), style="red"))
            else:
                out.print(Text(f"Deleted {plain(document_id)} ({deleted} chunks)."))
    if missing:
        raise SystemExit(FAILED)


def stored(gateway: Gateway, collection: str) -> Iterator[dict[str, Any]]:
    """Every document of a collection, by id, without its text."""
    after = ""
    while True:
        page = gateway.call_patiently(
            "GET", documents_path(collection), params={"limit": _PAGE, "after": after}
        )
        yield from page["documents"]
        after = page["next_after"] or ""
        if not after:
            return


def remove(gateway: Gateway, collection: str, document_id: str) -> int:
    """Delete one document; how many chunks it had."""
    path = f"{documents_path(collection)}/{segment(document_id)}"
    return int(gateway.call_patiently("DELETE", path)["deleted_chunks"])


def prune(gateway: Gateway, collection: str, selection: Selection) -> list[str]:
    """Delete the documents of the selected folders whose files are no longer there.

    Files that are there but could not be read keep their documents.

    Returns:
        The ids of the deleted documents.
    """
    kept = {file.name for file in selection.files} | {name for name, _ in selection.unreadable}
    gone = [
        document["id"]
        for document in stored(gateway, collection)
        if document["id"].startswith(tuple(selection.folders)) and document["id"] not in kept
    ]
    for document_id in gone:
        remove(gateway, collection, document_id)
    return gone
