"""A maildir as a source, written by Python's own `mailbox`."""

from __future__ import annotations

import errno
import mailbox
import os
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from raglan_ingester.sources.config import MaildirSettings
from raglan_ingester.sources.reader import Skipped, SkippedDocumentError
from raglan_ingester.sources.readers.maildir import MaildirReader


def message(subject: str) -> mailbox.MaildirMessage:
    made = EmailMessage()
    made["Subject"] = subject
    made.set_content("Text.")
    return mailbox.MaildirMessage(made)


@pytest.fixture
def box(tmp_path: Path) -> mailbox.Maildir:
    return mailbox.Maildir(tmp_path / "mail")


def reader_of(box: mailbox.Maildir, **changes: Any) -> MaildirReader:
    settings = MaildirSettings(
        name="mail", kind="maildir", collection="default", path=Path(box._path), **changes
    )
    return MaildirReader(settings, 10_000)


async def subjects(reader: MaildirReader) -> dict[str, str]:
    """Subject by key."""
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    found = {}
    for entry in listing.entries:
        content = await reader.read(entry, "")
        assert content is not None
        assert content.media_type == "message/rfc822"
        found[entry.key] = content.data.decode().partition("Subject: ")[2].partition("\n")[0]
    return found


async def test_messages_of_all_folders_are_read(box: mailbox.Maildir) -> None:
    first = box.add(message("One"))
    second = box.add_folder("Sent").add(message("Two"))
    (Path(box._path) / "tmp" / "half").write_text("Subject: Half")
    (Path(box._path) / "dovecot-uidlist").write_text("3")
    assert await subjects(reader_of(box)) == {first: "One", f"Sent/{second}": "Two"}


async def test_a_message_keeps_its_key_when_it_is_read_and_flagged(box: mailbox.Maildir) -> None:
    key = box.add(message("One"))
    assert await subjects(reader_of(box)) == {key: "One"}
    seen = box[key]
    seen.set_subdir("cur")
    seen.set_flags("FS")
    box[key] = seen
    assert await subjects(reader_of(box)) == {key: "One"}


async def test_a_message_in_the_trash_is_none(box: mailbox.Maildir) -> None:
    key = box.add(message("One"))
    trashed = box[key]
    trashed.set_subdir("cur")
    trashed.set_flags("T")
    box[key] = trashed
    assert await subjects(reader_of(box)) == {}


async def test_a_message_that_moves_meanwhile_is_not_taken_for_deleted(
    box: mailbox.Maildir,
) -> None:
    key = box.add(message("One"))
    reader = reader_of(box)
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    (entry,) = listing.entries
    path = Path(box._path) / "new" / key
    path.rename(Path(box._path) / "cur" / f"{key}:2,S")
    with pytest.raises(SkippedDocumentError, match="was moved while it was read"):
        await reader.read(entry, "")


async def test_a_folder_that_cannot_be_read_is_named_by_its_keys(
    box: mailbox.Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = box.add(message("One"))
    box.add_folder("Sent").add(message("Two"))
    opened = os.open

    def open_others(path: Any, *arguments: Any, **options: Any) -> int:
        if path == ".Sent":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_others)
    listing = await reader_of(box).list_entries("", Skipped())
    assert listing is not None
    assert [entry.key for entry in listing.entries] == [first]
    assert listing.unread == {"Sent/": "The folder '.Sent' cannot be read: Permission denied."}
