"""A data folder of its own for every test of the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a gateway that is not given another."""
    folder = tmp_path / "gateway"
    monkeypatch.setenv("RAGLAN_GATEWAY_DATA_DIR", str(folder))
    return folder
