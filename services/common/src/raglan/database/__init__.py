"""A service's own database: SQLite in its data folder, or PostgreSQL; needs `raglan[database]`."""

from raglan.database.engine import (
    Database,
    DatabaseUnavailable,
    PatientDatabase,
    Transactions,
    now_ms,
)
from raglan.database.schema import Schema
from raglan.database.urls import check_url, url_of

__all__ = [
    "Database",
    "DatabaseUnavailable",
    "PatientDatabase",
    "Schema",
    "Transactions",
    "check_url",
    "now_ms",
    "url_of",
]
