"""Every row of the fault matrix, against real processes under an open-loop load.

`make test-faults` runs all of it for as long as it takes; `make test` a few rows, briefly. One row:

    FAULT_MATRIX=full pytest tests/faults -k kill_embedder
"""

from __future__ import annotations

import time

import pytest
from faults.conftest import Beds
from faults.matrix import TABLE, Scenario
from faults.open_loop import Options
from faults.trial import FULL, Trial
from report import Row

ROWS = [scenario for scenario in TABLE if FULL or scenario.short]


@pytest.mark.timeout(300)
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
    try:
        await scenario.run(trial, Options(port=bed.port, seed=seed, rate=capacity_per_s / 2))
    finally:
        with capsys.disabled():
            print(f"\n{scenario.name} (seed {seed}, {capacity_per_s / 2:.0f} a second)")
            for row in trial.rows:
                met = {True: "met", False: "NOT MET", None: ""}[row.met]
                figure = f"{row.ours:.4g} {row.unit} ({row.target or ''}) {met}"
                print(f"  {row.what.partition(': ')[2]}: {figure}  {row.note or ''}")
    missed = [
        f"{row.what} is {row.ours:.4g} {row.unit}, not {row.target}; {row.note}"
        for row in trial.rows
        if row.met is False
    ]
    assert not missed, "\n".join([f"see {bed.folder}", *missed])
