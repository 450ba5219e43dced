"""Writes `_sync/` of raglan.client from `_async/`: `make client`."""

from __future__ import annotations

from pathlib import Path

import unasync

FOLDER = Path(__file__).parent / "src" / "raglan" / "client"
NAMES = {
    "AsyncBaseTransport": "BaseTransport",
    "AsyncClient": "Client",
    "AsyncConnection": "Connection",
    "AsyncConversations": "Conversations",
    "AsyncDocuments": "Documents",
    "AsyncExitStack": "ExitStack",
    "AsyncRetrying": "Retrying",
    "_async": "_sync",
    "aclose": "close",
    "aconnect_sse": "connect_sse",
    "aiter_bytes": "iter_bytes",
    "aiter_sse": "iter_sse",
    "apieces": "pieces",
    "aread": "read",
    "asyncio": "time",
    "enter_async_context": "enter_context",
    "push_async_exit": "push",
}


def main() -> None:
    """Write the files."""
    rule = unasync.Rule("/_async/", "/_sync/", NAMES)
    for name in ("connection.py", "conversations.py", "documents.py", "client.py"):
        unasync.unasync_files([str(FOLDER / "_async" / name)], [rule])
        made = FOLDER / "_sync" / name
        text = made.read_text(encoding="utf-8").replace("an `async with` block", "a `with` block")
        made.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
