"""Following ingestion jobs until they end, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from raglan_cli.client import Gateway

STAGES: Final = ("parse", "chunk", "embed", "index")
ENDED: Final = frozenset({"succeeded", "partial", "failed", "cancelled"})
_POLL_S: Final = 0.4


@dataclass(slots=True)
class Outcome:
    """Outcome of several jobs."""

    documents: int = 0
    unchanged: int = 0
    replaced: int = 0
    """Documents that took the place of an earlier version."""
    chunks: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    """{"document", "reason"} of each document that is not in the collection."""
    warnings: list[dict[str, str]] = field(default_factory=list)
    """{"document", "message"}; an empty document stands for the whole job."""
    warning_count: int = 0
    """All of them; `warnings` holds the first of each job."""
    jobs: list[dict[str, str]] = field(default_factory=list)
    """{"id", "status"}."""


def follow(
    gateway: Gateway,
    job_ids: Sequence[str],
    on_progress: Callable[[Mapping[str, tuple[int, int]]], object],
) -> Outcome:
    """Wait until every job has ended; `on_progress` gets stage -> (done, total) in all."""
    jobs: dict[str, dict[str, Any]] = {}
    waiting = list(job_ids)
    while waiting:
        jobs |= {job_id: gateway.job(job_id) for job_id in waiting}
        on_progress(progress(list(jobs.values())))
        waiting = [job_id for job_id in waiting if jobs[job_id]["status"] not in ENDED]
        if waiting:
            time.sleep(_POLL_S)
    return outcome(list(jobs.values()))


def progress(jobs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Stage -> (done, total), summed over `jobs`."""
    stages = [job.get("stages") or {} for job in jobs]
    return {
        name: (
            sum(stage[name]["done"] for stage in stages if name in stage),
            sum(stage[name]["total"] for stage in stages if name in stage),
        )
        for name in STAGES
    }


def outcome(jobs: Sequence[Mapping[str, Any]]) -> Outcome:
    """The sum of ended jobs; one that failed as a whole or was cancelled counts as a failure."""
    total = Outcome()
    for job in jobs:
        total.jobs.append({"id": job["id"], "status": job["status"]})
        total.documents += job.get("documents") or 0
        total.unchanged += job.get("unchanged") or 0
        total.replaced += job.get("replaced") or 0
        total.failed += [
            {"document": error["document_id"], "reason": error["message"]}
            for error in job.get("errors") or ()
        ]
        total.warnings += [
            {"document": warning["document_id"], "message": warning["message"]}
            for warning in job.get("warnings") or ()
        ]
        total.warning_count += job.get("warning_count") or 0
        if job["status"] in {"failed", "cancelled"} and not job.get("errors"):
            total.failed.append({"document": f"job {job['id']}", "reason": f"It {_ended(job)}."})
    total.chunks = progress(jobs)["index"][0]
    return total


def _ended(job: Mapping[str, Any]) -> str:
    return "was cancelled" if job["status"] == "cancelled" else "failed as a whole"
