"""`raglan chunks`: how a file would be cut, before it is ingested."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from raglan.chunking_strategy import ChunkingStrategy
from rich.text import Text

from raglan_cli.client import Gateway, JsonOption, UrlOption, check_name, find_url
from raglan_cli.failure import UsageFailure
from raglan_cli.screen import counted, err, one_line, out, print_json
from raglan_cli.walk import cannot_read

_SHOWN_CHARS: Final = 300
"""Of a chunk's text, without --full."""


def chunks(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to cut.")],
    strategy: Annotated[
        ChunkingStrategy | None,
        typer.Option("--strategy", "-s", help="The way to cut. Default: the collection's."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="NAME",
            callback=check_name,
            help="Cut as this collection would; else by the default settings.",
        ),
    ] = None,
    max_chars: Annotated[
        int | None, typer.Option("--max-chars", min=100, max=20_000, help="Longest chunk.")
    ] = None,
    overlap_chars: Annotated[
        int | None,
        typer.Option(
            "--overlap-chars",
            min=0,
            max=10_000,
            help="Characters a chunk repeats of the one before it; needs --max-chars.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=1_000, help="Chunks to show.")
    ] = 20,
    full: Annotated[bool, typer.Option("--full", help="Show each chunk's whole text.")] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the chunks that a file would be cut into. Nothing is stored.

    Examples:

      raglan chunks handbook.md

      raglan chunks server.log --strategy log --limit 5 --full

      raglan chunks handbook.md -c handbook --json | jq .chunk_count
    """
    asked = {
        "collection": collection,
        "strategy": strategy and str(strategy),
        "max_chars": max_chars,
        "overlap_chars": overlap_chars,
        "limit": limit,
    }
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UsageFailure(f"{file}: {cannot_read(error)}") from None
    with stream, Gateway(find_url(url)) as gateway:
        found = gateway.call(
            "POST",
            "/v1/chunks",
            files={"files": (file.name, stream, kind)},
            params={name: value for name, value in asked.items() if value is not None},
        )
    if json:
        print_json(found)
    else:
        _show(found, full=full)


def _show(found: Mapping[str, Any], *, full: bool) -> None:
    chunking = found["chunking"]
    for number, chunk in enumerate(found["chunks"]):
        place = f"{chunk['start']:,} to {chunk['end']:,}"
        path = " > ".join(chunk["heading_path"]) or found["title"]
        out.print(
            Text.assemble((f"{number + 1}", "bold"), f"  {place}  ", (one_line(path, 100), "dim"))
        )
        for key, value in chunk["metadata"].items():
            out.print(Text(one_line(f"   {key}: {value}", 200), style="dim"))
        text = chunk["text"] if full else one_line(chunk["text"], _SHOWN_CHARS)
        out.print(Text(text), "")
    sizes = f"{chunking['strategy']}, at most {chunking['max_chars']:,} characters"
    counts = f"{counted(found['chunk_count'], 'chunk')} of {found['chars']:,} characters"
    out.print(f"{counts} ({sizes}).")
    for warning in found["warnings"]:
        err.print(warning, style="yellow")
