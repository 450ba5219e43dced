"""The ingester's tables in its database. DBOS keeps its own and migrates them itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from raglan.database import Schema

SCHEMA: Final = Schema(
    service="ingester",
    versions=Path(__file__).with_name("migrations") / "versions",
    version_table="raglan_schema",
    advisory_lock=0x7261_676C_616E,
)
