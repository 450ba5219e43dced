"""Every row of the fault matrix, against real processes under an open-loop load.

`make test-faults` runs all of it for as long as it takes; `make test` a few rows, briefly. One row:

    FAULT_MATRIX=full pytest tests/faults -k kill_embedder
"""

from __future__ import annotations

import sys
import time

import pytest
from faults.conftest import Beds
from faults.matrix import TABLE, Scenario
from faults.trial import FORM, FULL, Trial
from report import Row

ROWS = [scenario for scenario in TABLE if FULL or scenario.short]


@pytest.mark.alone
@pytest.mark.timeout(400)
@pytest.mark.loop_stall_s(10)  # the loops under test are those of other processes
@pytest.mark.parametrize("scenario", ROWS, ids=lambda scenario: scenario.name)
async def test_the_mesh_survives(
    scenario: Scenario,
    beds: Beds,
    figures: dict[str, list[Row]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bed, capacity_per_s = await beds.of(scenario.setup)
    seed = time.time_ns() % 1_000_000
    trial = Trial(scenario.name, bed, seed)
    figures[scenario.name] = trial.rows
    options = FORM.load(bed.options(seed=seed, rate=capacity_per_s / 2))
    try:
        await scenario.run(trial, options)
    except Exception as error:
        trial.found("ran to its end", 0, "", ">= 1", str(error))
        raise
    finally:
        with capsys.disabled():
            sys.stdout.write(f"\n{scenario.name} (seed {seed}, {options.rate:.0f} a second)\n")
            sys.stdout.writelines(f"  {shown(row)}\n" for row in trial.rows)
    missed = [row for row in trial.rows if row.met is False]
    assert not missed, "\n".join([f"see {bed.folder}", *map(shown, trial.rows)])


def shown(row: Row) -> str:
    """A figure in a line."""
    met = {True: "met", False: "NOT MET", None: ""}[row.met]
    return f"{row.what}: {row.ours:.4g} {row.unit} ({row.target or ''}) {met}  {row.note or ''}"
