"""Reader of a maildir: each message is a document, named by the part of its file that stays.

A message never changes; its file moves from `new` to `cur` and is renamed with its flags.
"""

from __future__ import annotations

from typing import Final

from raglan.identifiers import shortened

from raglan_ingester.sources.config import MaildirSettings
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Skipped,
    SkippedDocumentError,
)
from raglan_ingester.sources.readers.folder import FolderReader
from raglan_ingester.sources.selection import Selection

_FOLDERS: Final = ("cur", "new")
_MESSAGE: Final = "message/rfc822"


class _Messages(Selection):
    """Takes the messages of the mailbox and of its subfolders, which are `.Name`."""

    def takes_folder(self, path: str) -> bool:
        """Return whether to look into a folder."""
        name = path.rstrip("/").rpartition("/")[2]
        return name in _FOLDERS or (path.count("/") == 1 and name.startswith("."))

    def takes(self, path: str) -> bool:
        """Return whether a file is a message that is not in the trash."""
        folder, _, name = path.rpartition("/")
        flags = name.partition(":2,")[2]
        is_message = folder.rpartition("/")[2] in _FOLDERS and not name.startswith(".")
        return is_message and "T" not in flags and self.is_chosen(_key(path))


class MaildirReader:
    """Lists and reads messages.

    Args:
        settings: of the source.
        max_bytes: of one message.
    """

    def __init__(self, settings: MaildirSettings, max_bytes: int) -> None:
        self._files = FolderReader(settings, settings.path, max_bytes, _Messages(settings))
        self._paths: dict[str, str] = {}

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the messages, as `Reader.list_entries` does."""
        listing = await self._files.list_entries(cursor, skipped)
        assert listing is not None
        self._paths = {_key(each.key): each.key for each in listing.entries}
        unread = {_keys_below(folder): reason for folder, reason in listing.unread.items()}
        return Listing([Entry(key, "1") for key in self._paths], unread=unread)

    async def read(self, entry: Entry, former: str) -> Content | None:
        """Read a message, as `Reader.read` does."""
        found = await self._files.read(Entry(self._paths[entry.key], entry.version), former)
        if found is None:  # as likely renamed as deleted: the next listing tells
            raise SkippedDocumentError(f"{shortened(entry.key)} was moved while it was read.")
        mailbox = entry.key.rpartition("/")[0]
        return Content(found.data, media_type=_MESSAGE, metadata={"mailbox": mailbox or "INBOX"})

    async def close(self) -> None:
        """Make a listing that still runs end."""
        await self._files.close()


def _keys_below(folder: str) -> str:
    """Return the beginning of the keys of a folder's messages; INBOX has all of them below it."""
    mailbox = folder.partition("/")[0]
    return f"{mailbox.removeprefix('.')}/" if mailbox.startswith(".") else ""


def _key(path: str) -> str:
    """Return the name of a message that stays when it is read, flagged or answered."""
    folder, _, name = path.rpartition("/")
    mailbox = folder.rpartition("/")[0].removeprefix(".")
    unique = name.partition(":2,")[0]
    return f"{mailbox}/{unique}" if mailbox else unique
