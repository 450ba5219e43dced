"""`python -m raglan_ingester.bulk`, which `raglan bulk` runs: the driver of the Ray cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from raglan import logs
from raglan.errors import RaglanError

from raglan_ingester.bulk.manifest import FAILED, GONE, INDEXED, Manifest
from raglan_ingester.bulk.plan import Plan, Services, digest_of, plan_of
from raglan_ingester.bulk.worker import BulkDocuments, BulkWorker
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources.reader import Entry, Listing, Skipped

_BATCH: Final = 16
"""Documents that a worker takes at a time, and loses when it dies."""
_MAX_BLOCKS: Final = 4096
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""No statistics are sent; Ray's own messages are in its log folder."""
LOCAL: Final = "local"


def main() -> None:
    """Run with the options of the command line."""
    given = _parser().parse_args()
    logs.configure(IngesterSettings(log_level="warning"), "bulk")
    began = time.monotonic()
    try:
        plan = plan_of(
            given.source,
            Services(given.ingester, given.embedder, given.retriever),
            collection=given.collection,
            include=given.include,
            exclude=given.exclude,
            **({"endpoint": given.endpoint} if given.endpoint else {}),
        )
        # Ray prints what becomes of its nodes; stdout is for the report alone.
        with redirect_stdout(sys.stderr):
            report = run(plan, Path(given.manifest), given.ray, given.workers)
    except (RaglanError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    report["seconds"] = round(time.monotonic() - began, 2)
    sys.stdout.write(f"{json.dumps(report)}\n" if given.json else _sentences(report))
    raise SystemExit(1 if report["failed"] or report["unread"] else 0)


def run(plan: Plan, path: Path, address: str, workers: int) -> dict[str, Any]:
    """Bring what is not in the manifest yet into the collection.

    Args:
        plan: source and services.
        path: the manifest.
        address: of the Ray cluster; `local` starts one on this machine.
        workers: actors; 0 for one a CPU of the cluster.

    Returns:
        Counts by state, `listed`, `done_before`, `skipped` (links, for example), sentences about
        folders that are `unread`, and the `failures`.

    Raises:
        RaglanError: the source or the mesh cannot be reached, or another manifest.
        ConnectionError: the cluster cannot be reached.
    """
    skipped = Skipped()
    settings, listing = asyncio.run(_look(plan, skipped))
    head = {"source": plan.origin, "collection": plan.collection, "settings": settings}
    manifest = Manifest(path, head)
    try:
        left = [
            entry
            for entry in listing.entries
            if manifest.versions.get(f"{plan.name}/{entry.key}", "") != entry.version
            or not entry.version
        ]
        for line in _records(plan, left, address, workers) if left else ():
            manifest.add(line)
    finally:
        manifest.close()
    return {
        "collection": plan.collection,
        "listed": len(listing.entries),
        "done_before": len(listing.entries) - len(left),
        **{state: manifest.states[state] for state in (INDEXED, FAILED, GONE)},
        "skipped": skipped.count,
        "unread": list(listing.unread.values()),
        "failures": manifest.failures,
    }


async def _look(plan: Plan, skipped: Skipped) -> tuple[str, Listing]:
    documents = BulkDocuments(plan, IngesterSettings())
    try:
        return digest_of(await documents.collection()), await documents.listing(skipped)
    finally:
        await documents.close()


def _records(plan: Plan, entries: Sequence[Entry], address: str, workers: int) -> Iterator[str]:
    """Yield a line of the manifest for each document, in the order in which they are done."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items

    logging.getLogger("ray.data").setLevel(logging.ERROR)

    local = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(
        **(local if address == LOCAL else {"address": address}),
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        DataContext.get_current().enable_progress_bars = False
        rows = [{"key": entry.key, "version": entry.version} for entry in entries]
        actors = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        blocks = min(_MAX_BLOCKS, -(-len(rows) // _BATCH))
        documents = from_items(rows, override_num_blocks=blocks).map_batches(
            BulkWorker,
            fn_constructor_args=(plan,),
            batch_size=_BATCH,
            compute=ActorPoolStrategy(min_size=1, max_size=min(actors, blocks)),
            num_cpus=1,
        )
        for row in documents.iter_rows():
            yield row["record"]
    finally:
        ray.shutdown()


def _sentences(report: dict[str, Any]) -> str:
    lines = [
        f"{report['listed']} documents listed for {report['collection']}: "
        f"{report['done_before']} were done before, {report[INDEXED]} indexed, "
        f"{report[GONE]} gone, {report['skipped']} skipped, {report[FAILED]} failed, "
        f"in {report['seconds']:.1f} s",
        *report["unread"],
    ]
    lines += [f"{each['document']}: {each['error']}" for each in report["failures"][:20]]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raglan bulk")
    parser.add_argument("source")
    for name in ("collection", "ray", "manifest", "ingester", "embedder", "retriever"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
