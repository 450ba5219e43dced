from __future__ import annotations

from collections.abc import Iterator

import pytest
import scripted_server


@pytest.fixture
def server() -> Iterator[scripted_server.Scripted]:
    with scripted_server.serving() as server:
        yield server
