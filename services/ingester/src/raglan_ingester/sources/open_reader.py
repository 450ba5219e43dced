"""The readers by kind: the only place that names all of them."""

from __future__ import annotations

from pathlib import Path

from raglan_ingester.sources.config import (
    AnySource,
    FeedSettings,
    FolderSettings,
    GitSettings,
    MaildirSettings,
    PostgresqlSettings,
    S3Settings,
    SitemapSettings,
)
from raglan_ingester.sources.reader import Reader, SourceUnavailable
from raglan_ingester.sources.readers.folder import FolderReader
from raglan_ingester.sources.readers.git import GitReader
from raglan_ingester.sources.readers.maildir import MaildirReader
from raglan_ingester.sources.readers.postgresql import PostgresqlReader
from raglan_ingester.sources.readers.s3 import S3Reader
from raglan_ingester.sources.readers.web import WebReader


class Readers:
    """Opens readers.

    Args:
        max_bytes: of one document.
        folder: for copies of repositories.
    """

    def __init__(self, max_bytes: int, folder: Path) -> None:
        self._max_bytes = max_bytes
        self._folder = folder

    def open(self, source: AnySource) -> Reader:
        """Open the reader of a source for one sync.

        Raises:
            SourceUnavailable: its password cannot be read.
        """
        match source:
            case FolderSettings():
                return FolderReader(source, source.path, self._max_bytes)
            case MaildirSettings():
                return MaildirReader(source, self._max_bytes)
            case GitSettings():
                password = _secret(source.password_file)
                return GitReader(
                    source, password, self._folder / f"{source.name}.git", self._max_bytes
                )
            case PostgresqlSettings():
                password = _secret(source.password_file)
                return PostgresqlReader(source, password, self._max_bytes)
            case S3Settings():
                return S3Reader(source, _secret(source.secret_access_key_file), self._max_bytes)
            case SitemapSettings() | FeedSettings():
                return WebReader(source, self._max_bytes)


def _secret(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SourceUnavailable(f"The password in {file} cannot be read.") from None
