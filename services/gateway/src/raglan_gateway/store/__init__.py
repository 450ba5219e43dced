"""The gateway's own data: its tables, their revisions, and the database that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from raglan.database import Database, Schema, url_of
from raglan.disk import require_writable

from raglan_gateway.settings import GatewaySettings

SCHEMA: Final = Schema(
    service="gateway",
    versions=Path(__file__).with_name("versions"),
    version_table="raglan_gateway_schema",
    advisory_lock=0x7261_676C_6777,
)
"""The database may be the ingester's: names of tables must differ from its own."""


def open_database(settings: GatewaySettings) -> Database:
    """Open the database of `settings`, without a connection yet; `Database.create` migrates it."""
    url = settings.database_url.get_secret_value()
    password = settings.database_password.get_secret_value()
    address = url_of(url, settings.data_dir / "gateway.sqlite", password)
    # SQLite has one writer, and each connection holds three files.
    return Database(address, SCHEMA, threads=4 if url else 1)


def require_folder(settings: GatewaySettings) -> None:
    """Make the folder of the SQLite file, where the settings name no other database.

    Raises:
        Unavailable: it cannot be written to.
    """
    if not settings.database_url.get_secret_value():
        require_writable(settings.data_dir, "RAGLAN_GATEWAY_DATA_DIR")
