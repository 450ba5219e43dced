"""Three tenants with the same ids and questions on one mesh: results seen, and foreign ones.

Prints a line a route and the figure of docs/api/tenants.md; status 1 if a result was foreign.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx
import mesh_process
import structlog
import tenant_apis
import tenant_leaks
from pydantic import SecretStr
from tenant_leaks import MARKS, Tally, Tenant

COUNT = 60
"""Documents of each tenant."""

RESULTS = int(os.environ.get("RESULTS", "100000"))
DATABASE = os.environ.get("DATABASE", "sqlite")
"""Of ingester and gateways: sqlite, or a PostgreSQL that this starts (postgresql)."""
SEED = int(os.environ.get("SEED", "15"))
OUT = Path(__file__).parent / "results" / f"tenants-{DATABASE}.json"


async def attack(addresses: dict[str, str], folder: Path, database_url: SecretStr) -> Tally:
    """Send random requests through two gateways with one Redis."""
    tally = Tally()
    with tenant_leaks.redis(folder) as redis_url:
        shared = {"redis_url": redis_url, "database_url": database_url, "data_dir": folder}
        async with (
            tenant_leaks.gateway(addresses, **shared) as url,
            tenant_leaks.gateway(addresses, **shared) as other,
            httpx.AsyncClient(base_url=url, timeout=60) as client,
        ):
            tenants = [Tenant(client, name, tally) for name in MARKS]
            for tenant in tenants:
                await tenant.fill(COUNT)
            await tenant_apis.attack(
                tenants, tally, results=RESULTS, count=COUNT, seed=SEED, urls=("", other)
            )
    return tally


def main() -> int:
    """Run, print and keep the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as temporary, tenant_leaks.database(DATABASE) as database:
        folder = Path(temporary)
        variables = {"RAGLAN_INGESTER_DATABASE_URL": database.get_secret_value()}
        with mesh_process.running(folder / "mesh", **variables) as mesh:
            addresses = {
                each["service"]: each["address"]
                for each in mesh.services()
                if each["service"] != "gateway"
            }
            began = time.monotonic()
            tally = asyncio.run(attack(addresses, folder, database))
            seconds = time.monotonic() - began
    for route, seen in tally.results.most_common():
        print(f"{route:12} {seen:>8,}")
    print(f"{len(tally.foreign)} foreign of {tally.total:,} results in {seconds:.0f} s")
    for leak in tally.foreign[:20]:
        print(leak)
    figures = {
        "results": tally.total,
        "foreign": len(tally.foreign),
        "by_route": dict(tally.results),
        "database": DATABASE,
        "seed": SEED,
    }
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if tally.foreign else 0


if __name__ == "__main__":
    sys.exit(main())
