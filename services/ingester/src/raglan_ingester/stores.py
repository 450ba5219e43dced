"""Stores of the service."""

from __future__ import annotations

from raglan.database import Database, PatientDatabase

from raglan_ingester.blobs import BlobStore
from raglan_ingester.change_store import ChangeStore
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.documents import DocumentStore
from raglan_ingester.job_traces import JobTraces
from raglan_ingester.jobs import JobStore
from raglan_ingester.labels import LabelStore
from raglan_ingester.prepared import PreparedStore
from raglan_ingester.revisions import RevisionStore
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources.store import SourceStore
from raglan_ingester.versions import VersionStore


class Stores:
    """Stores over the tables, and the locks of their writers."""

    def __init__(self, database: Database, settings: IngesterSettings) -> None:
        self.patient = patient = PatientDatabase(database)
        self.database = database
        # Runs wait for a database that is away; callers are told.
        self.jobs, self.documents = JobStore(patient), DocumentStore(patient)
        self.asked_jobs, self.asked_documents = JobStore(database), DocumentStore(database)
        self.traces = JobTraces(patient)
        self.revisions = RevisionStore(database)
        self.labels = LabelStore(database, settings.max_metadata_bytes)
        self.changes = ChangeStore(database, settings.max_metadata_bytes)
        self.sources = SourceStore(database)
        self.versions = VersionStore(database)
        self.blobs = BlobStore(settings.data_dir / "blobs", min_free_mb=settings.min_free_mb)
        self.prepared = PreparedStore(
            settings.data_dir / "prepared", min_free_mb=settings.min_free_mb
        )
        self.locks = CollectionLocks()
        self.submissions = CollectionLocks()
