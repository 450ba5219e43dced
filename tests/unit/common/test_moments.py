"""Texts that are dates and times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from raglan.moments import is_whole_day, moment_of

TEN = datetime(2026, 11, 28, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-28T10:00:00Z", "2026-11-28t10:00:00z", "2026-11-28T11:00:00+01:00",
        "2026-11-28 10:00:00", "2026-11-28T10:00", "2026-11-28T04:30:00.000-05:30",
    ],
)  # fmt: skip
def test_a_time_is_read_in_every_form(text: str) -> None:
    assert moment_of(text) == TEN
    assert not is_whole_day(text)


def test_a_date_is_its_midnight() -> None:
    assert moment_of("2026-11-28") == datetime(2026, 11, 28, tzinfo=UTC)
    assert is_whole_day("2026-11-28")


@pytest.mark.parametrize(
    "text",
    ["", "2026", "20261128", "2026-11", "2026-W48-6", "2026-02-30", "2026-11-28T25:00:00Z",
     "2026-11-28T10:00:00+25:00", "2026-11-28T", "on 2026-11-28", "2026-11-28\n", "٢٠٢٦-11-28"],
)  # fmt: skip
def test_other_texts_are_none(text: str) -> None:
    assert moment_of(text) is None
