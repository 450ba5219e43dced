"""Small JSON records on the gateway's disk, by tenant: what collections and jobs cannot hold."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import Any, Final

from raglan.errors import StorageFull

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}")


class Records:
    """Records of one kind; of more than `most` a tenant's oldest are removed.

    Every method blocks on the disk: call it in a thread.
    """

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder = folder
        self._most = most

    def put(self, tenant: str, id_: str, record: dict[str, Any]) -> None:
        """Keep a record, in place of an earlier one."""
        folder = self._of(tenant)
        unfinished = folder / f".{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            unfinished.write_text(json.dumps(record), encoding="utf-8")
            unfinished.replace(folder / f"{id_}.json")
            kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in kept[: -self._most]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFull(
                f"The record cannot be kept: {error.strerror} (RAGLAN_GATEWAY_DATA_DIR)."
            ) from None

    def get(self, tenant: str, id_: str) -> dict[str, Any]:
        """Return a record; empty where there is none."""
        if not _ID.fullmatch(id_):
            return {}
        try:
            found = json.loads((self._of(tenant) / f"{id_}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def delete(self, tenant: str, id_: str) -> None:
        """Delete a record, if there is one."""
        if _ID.fullmatch(id_):
            (self._of(tenant) / f"{id_}.json").unlink(missing_ok=True)

    def _of(self, tenant: str) -> Path:
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()[:32]
