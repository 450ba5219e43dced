"""Selection of the runs to compare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from raglan_cli.failure import UsageFailure

from history import records
from history.records import Record

LAST: Final = "last"
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_COMMIT: Final = re.compile(r"[0-9a-f]{4,40}(\+[0-9a-f]+)?")


@dataclass(frozen=True, slots=True)
class Pair:
    """Runs of one bench under the same conditions; both sides hold at least one."""

    title: str
    before: Sequence[Record]
    now: Sequence[Record]


def pairs(
    runs: Iterable[Record], *, machine: str, baseline: str, bench: str | None = None
) -> tuple[list[Pair], list[str]]:
    """Pair runs with their baselines; give a sentence for each bench that has none.

    Now is the latest revision of a bench. Its baseline is, by `baseline`:

    - "last": the revision before it, or the earlier runs where all have the same;
    - a date (2026-11-20): the runs of that day, UTC;
    - a commit, its beginning, or a name that git knows: the runs of it, where there are any with
      the files as committed those alone;
    - a version: the runs of it outside of a checkout.

    Raises:
        UsageFailure: there is no run of this machine, of `bench`, or of the baseline.
    """
    found = _series(runs, machine, bench)
    of = _revisions(baseline, [run for some in found.values() for run in some])
    compared: list[Pair] = []
    left: list[str] = []
    for title, some in found.items():
        before, now = _split(some, baseline, of)
        if before and now:
            compared.append(Pair(title, before, now))
        else:
            missing = f"no run of {baseline}" if now else "no run that is not of the baseline"
            left.append(f"{title}: {missing} among {len(some)}.")
    if not compared:
        raise UsageFailure(
            "There is nothing to compare. " + " ".join(left[:5]) + " Run the bench again, or name "
            "another --baseline: a commit, a date or last."
        )
    return compared, left


def _series(runs: Iterable[Record], machine: str, bench: str | None) -> dict[str, list[Record]]:
    """Title -> the runs that can be compared with each other, the oldest first."""
    every = sorted(runs, key=lambda run: run.at)
    here = [run for run in every if run.machine == machine]
    if not here:
        others = sorted({run.machine for run in every})
        hint = f"; it has those of {'; '.join(others)}" if others else ""
        raise UsageFailure(
            f"{records.history_path()} holds no run of this machine ({machine}){hint}."
        )
    named = [run for run in here if bench in (None, run.bench)]
    if not named:
        known = ", ".join(sorted({run.bench for run in here}))
        raise UsageFailure(f"There is no run of {bench} on this machine; there are {known}.")
    found: dict[str, list[Record]] = {}
    for run in named:
        told = ", ".join(f"{name} {value}" for name, value in sorted(run.conditions.items()))
        found.setdefault(f"{run.bench} ({told})" if told else run.bench, []).append(run)
    return found


def _revisions(baseline: str, runs: Sequence[Record]) -> set[str]:
    """The revisions that `baseline` names; empty for "last" and a date.

    Raises:
        UsageFailure: it names none of which there is a run.
    """
    if baseline == LAST or _DATE.fullmatch(baseline):
        return set()
    known = {run.revision for run in runs}
    if baseline in known:
        return {baseline}
    prefix = baseline if _COMMIT.fullmatch(baseline) else records.commit_of(baseline)
    commits = {run.commit for run in runs if run.commit and prefix}
    found = {commit for commit in commits if commit.startswith(prefix or "")}
    as_committed = {commit for commit in found if "+" not in commit}
    if not found:
        shown = ", ".join(sorted(_short(each) for each in known))
        raise UsageFailure(
            f"There is no run of the baseline {baseline}; there are runs of {shown}, and it takes "
            "a date (2026-11-20) or last too."
        )
    return as_committed or found


def _split(
    runs: Sequence[Record], baseline: str, of: set[str]
) -> tuple[list[Record], list[Record]]:
    latest = runs[-1].revision
    if baseline == LAST:
        earlier = [run.revision for run in runs if run.revision != latest]
        if not earlier:
            return list(runs[:-1]), list(runs[-1:])
        before = [run for run in runs if run.revision == earlier[-1]]
    elif of:
        before = [run for run in runs if run.revision in of]
    else:
        before = [run for run in runs if run.at.date().isoformat() == baseline]
    return before, [run for run in runs if run.revision == latest and run not in before]


def revisions(runs: Sequence[Record]) -> str:
    """Describe the revisions of runs."""
    return ", ".join(sorted({_short(run.revision) for run in runs}))


def _short(revision: str) -> str:
    commit, plus, digest = revision.partition("+")
    return f"{commit[:10]}{plus}{digest}"
