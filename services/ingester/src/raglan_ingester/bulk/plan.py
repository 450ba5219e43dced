"""What a bulk ingestion reads and where it writes to; it is sent to every worker."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from raglan.errors import InvalidInput

from raglan_ingester.clients.retriever import CollectionSettings
from raglan_ingester.fingerprints import PIPELINE_VERSION
from raglan_ingester.model import Item
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources import config
from raglan_ingester.sources.config import FolderSettings, S3Settings
from raglan_ingester.sources.reader import Reader
from raglan_ingester.sources.readers.folder import FolderReader
from raglan_ingester.sources.readers.s3 import S3Reader

_UNKNOWN: Final = "application/octet-stream"
_MAX_DOCUMENTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of the services of a mesh."""

    ingester: str
    embedder: str
    retriever: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A source and the services of a mesh."""

    source: FolderSettings | S3Settings
    name: str
    """Begins the ids of the documents: what `raglan ingest` calls the same folder."""
    services: Services

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.source.collection

    @property
    def origin(self) -> str:
        """Path or URL of the source."""
        return self.source.url if isinstance(self.source, S3Settings) else str(self.source.path)

    def reader(self, settings: IngesterSettings) -> Reader:
        """Open the source."""
        limit = settings.max_document_bytes
        if isinstance(self.source, S3Settings):
            return S3Reader(self.source, "", limit)
        return FolderReader(self.source, self.source.path, limit)

    def item(self, key: str, data: bytes) -> Item:
        """Describe a document as `raglan ingest` submits it."""
        name = f"{self.name}/{key}"
        return Item(
            document_id=name,
            filename=name,
            media_type=mimetypes.guess_type(name)[0] or _UNKNOWN,
            title="",
            metadata_json="{}",
            sha256=hashlib.sha256(data).hexdigest(),
        )


def plan_of(given: str, services: Services, **fields: Any) -> Plan:
    """Plan the ingestion of a folder or of `s3://bucket/prefix`.

    Args:
        given: the source.
        services: of the mesh.
        fields: further settings of a source: `collection`, `endpoint`, `include`, `exclude`.

    Raises:
        InvalidInput: the source cannot be one.
    """
    values = {"name": "bulk", "max_documents": _MAX_DOCUMENTS, **fields}
    try:
        if given.startswith("s3://"):
            bucket = S3Settings.model_validate(values | {"kind": "s3", "url": given})
            name = bucket.prefix.rstrip("/").rpartition("/")[2] or bucket.bucket
            return Plan(bucket, name, services)
        path = Path(given).absolute()
        folder = FolderSettings.model_validate(values | {"kind": "folder", "path": path})
    except ValidationError as error:
        raise InvalidInput(f"{given}: {config.first_problem(error)}.") from None
    return Plan(folder, path.name, services)


def digest_of(settings: CollectionSettings) -> str:
    """Return the same for settings by which a document need not be made anew."""
    decides = [PIPELINE_VERSION, *map(str, astuple(settings))]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()
