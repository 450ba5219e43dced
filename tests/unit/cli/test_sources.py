"""`raglan sources sync` waits for as long as it is told."""

from __future__ import annotations

import json
import time
from typing import Any

import scripted_server
from scripted_server import Reply

COUNTS = {"listed": 2, "added": 1, "changed": 0, "deleted": 0, "held": 0, "skipped": 0}


def reply(status: str) -> Reply:
    source = {"name": "wiki", "kind": "folder", "collection": "c", "status": status, "error": ""}
    source |= {"documents": 2, "failed_documents": 0, "last_sync": COUNTS, "skipped_reasons": []}
    return Reply(body=json.dumps(source | {"finished_at": None, "next_at": None}).encode())


def test_a_sync_is_not_waited_for_without_end(raglan: Any) -> None:
    with scripted_server.serving() as server:
        server.replies = [reply("due"), reply("syncing")]
        begun = time.monotonic()
        done = raglan("sources", "sync", "wiki", "--timeout", 1, url=server.url)
        assert time.monotonic() - begun >= 1
    assert done.status == 1
    assert "state      syncing" in done.out
    assert "wiki is still syncing after 1 s (--timeout); it goes on." in " ".join(done.err.split())


def test_a_sync_that_ends_in_time_succeeds(raglan: Any) -> None:
    with scripted_server.serving() as server:
        server.replies = [reply("due"), reply("synced")]
        done = raglan("sources", "sync", "wiki", url=server.url)
    assert done.status == 0
    assert "state      synced" in done.out
