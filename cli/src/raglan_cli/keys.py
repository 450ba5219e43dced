"""`raglan keys`: make, list, rotate and revoke keys of the gateway."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from raglan_cli import screen
from raglan_cli.client import Gateway, JsonOption, UrlOption, find_url, segment
from raglan_cli.failure import UsageFailure

app = typer.Typer(no_args_is_help=True, help="Keys of the gateway: make, list, rotate, revoke.")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PAGE: Final = 1000

KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="The key, by its id.")]


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; write 30m, 12h or 90d.")
    return int(found[1]) * _UNITS[found[2]]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Says who uses it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="query, ingest or admin; several times for several."),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="A collection that it may touch. Default: all."),
    ] = None,
    access: Annotated[
        list[str] | None,
        typer.Option(
            "--access",
            help="An access tag of documents that it reaches; '*' for all. Default: documents "
            "without tags; of an admin, all.",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="The tenant whose data it sees.")
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", help="Such as 90d. Default: never.")
    ] = None,
    requests: Annotated[
        int, typer.Option("--requests-per-minute", min=0, help="0 for no limit of its own.")
    ] = 0,
    concurrent: Annotated[
        int, typer.Option("--concurrent-requests", min=0, help="0 for no limit of its own.")
    ] = 0,
    tokens: Annotated[
        int, typer.Option("--tokens-per-minute", min=0, help="0 for no limit of its own.")
    ] = 0,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and print it: this once, because only its hash is kept.

    The first key needs the scope admin: from then on every request needs a key.

    Examples:
      raglan keys create me --scope admin
      raglan keys create open-webui --collection handbook --expires-in 90d
      raglan keys create personnel --access hr --access legal
    """
    body: dict[str, Any] = {
        "name": name,
        "scopes": scope or ["query"],
        "limits": {
            "requests_per_minute": requests,
            "concurrent_requests": concurrent,
            "tokens_per_minute": tokens,
        },
    }
    if collection:
        body["collections"] = collection
    if access:
        body["access"] = access
    if tenant is not None:
        body["tenant"] = tenant
    if expires_in is not None:
        body["expires_in_s"] = _seconds(expires_in)
    with Gateway(find_url(url)) as gateway:
        _show_secret(gateway.call("POST", "/v1/keys", json=body), json)


@app.command("list")
def list_keys(url: UrlOption = None, json: JsonOption = False) -> None:
    """List keys, revoked ones included, without their secrets."""
    found: list[dict[str, Any]] = []
    with Gateway(find_url(url)) as gateway:
        after: str | None = ""
        while after is not None:
            page = gateway.call("GET", "/v1/keys", params={"limit": _PAGE, "after": after})
            found += page["keys"]
            after = page["next_after"]
    if json:
        screen.print_json({"keys": found})
        return
    table = Table("id", "name", "state", "scopes", "collections", "tenant", "expires", box=None)
    for key in found:
        names = "all" if key["collections"] is None else ", ".join(key["collections"])
        scopes = ", ".join(key["scopes"])
        expires = key["expires_at"] or "never"
        table.add_row(key["id"], key["name"], key["state"], scopes, names, key["tenant"], expires)
    screen.out.print(table if found else "There is no key.")


@app.command()
def rotate(
    key: KeyArgument,
    overlap: Annotated[
        str, typer.Option("--overlap", help="So long is the former secret valid as well.")
    ] = "24h",
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Give a key a new secret and print it, this once."""
    body = {"overlap_s": _seconds(overlap)}
    with Gateway(find_url(url)) as gateway:
        path = f"/v1/keys/{segment(key)}/rotate"
        _show_secret(gateway.call("POST", path, json=body), json)


@app.command()
def revoke(key: KeyArgument, url: UrlOption = None, json: JsonOption = False) -> None:
    """End a key: within 5 seconds no gateway takes it any more."""
    if not key:
        raise UsageFailure("Name the key by its id; raglan keys list shows them.")
    with Gateway(find_url(url)) as gateway:
        gone = gateway.call("DELETE", f"/v1/keys/{segment(key)}")
    if json:
        screen.print_json(gone)
    else:
        screen.out.print(f"Revoked {gone['id']} ({gone['name']}).")


def _show_secret(made: dict[str, Any], json: bool) -> None:
    if json:
        screen.print_json(made)
        return
    # Alone on stdout, so that it can be redirected into a file.
    screen.out.print(made["key"], soft_wrap=True)
    screen.err.print(f"Key {made['id']} ({made['name']}). Keep it now: it is not shown again.")
