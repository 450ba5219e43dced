from __future__ import annotations

import pytest
from raglan.database import Database, url_of
from raglan.errors import Unavailable
from raglan_ingester.schema import SCHEMA


async def test_a_database_server_that_is_not_up_yet_is_worth_another_try(tmp_path) -> None:
    database = Database(
        url_of("postgresql://nobody@127.0.0.1:1/none", tmp_path / "ingester.sqlite"), SCHEMA
    )
    with pytest.raises(Unavailable, match="RAGLAN_INGESTER_DATABASE_URL") as caught:
        await database.create()
    assert caught.value.retry_after_s
    await database.close()
