"""Schemathesis sends what the OpenAPI document allows and what it forbids: never a 5xx."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mesh_process
import pytest
import schemathesis_run

CASES = int(os.environ.get("CASES", "3000"))
"""Cases to send, of all callers together: `make test-fuzz CASES=10000`."""
ADMIN = "0123456789abcdef0123456789abcdef"

pytestmark = pytest.mark.timeout(120 + CASES)


@pytest.fixture(scope="module")
def closed_mesh(
    tmp_path_factory: pytest.TempPathFactory, exported: dict[str, str]
) -> Iterator[mesh_process.Mesh]:
    """A mesh that asks for keys, with its caches on."""
    variables = exported | {"RAGLAN_GATEWAY_ADMIN_KEY": ADMIN}
    folder = tmp_path_factory.mktemp("closed") / "mesh"
    with mesh_process.running(folder, cached=True, **variables) as running:
        yield running


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Callable[[schemathesis_run.Fuzzed, int], None]:
    """Show the figure, also of a test that passes, and fail on anything wrong."""

    def shown(found: schemathesis_run.Fuzzed, cases: int) -> None:
        with capfd.disabled():
            sys.stdout.write(
                f" {found.cases:,} cases, {found.server_errors} 5xx, {found.hangs} hangs, "
                f"{found.others} other faults, {found.seconds:.0f} s\n"
            )
        assert (found.server_errors, found.hangs, found.others) == (0, 0, 0), "\n".join(found.said)
        assert found.cases >= cases

    return shown


def test_callers_without_keys(
    mesh: mesh_process.Mesh, tmp_path: Path, check: Callable[[schemathesis_run.Fuzzed, int], None]
) -> None:
    with mesh.client() as client:
        ids = schemathesis_run.prepare(client)
    cases = CASES * 6 // 10
    check(schemathesis_run.fuzz(mesh.url, tmp_path, cases=cases, ids=ids), cases)


@pytest.mark.parametrize("scope", ["admin", "query"])
def test_a_key_of_each_scope(
    closed_mesh: mesh_process.Mesh,
    tmp_path: Path,
    check: Callable[[schemathesis_run.Fuzzed, int], None],
    scope: str,
) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with closed_mesh.client(headers=headers) as client:
        ids = schemathesis_run.prepare(client)
        if scope == "query":
            made = client.post("/v1/keys", json={"name": "fuzzed", "scopes": ["query"]})
            headers = {"Authorization": f"Bearer {made.json()['key']}"}
    cases = CASES * 2 // 10
    found = schemathesis_run.fuzz(
        closed_mesh.url,
        tmp_path,
        cases=cases,
        headers=headers,
        ids=ids,
        phases="fuzzing,stateful",
    )
    check(found, cases)
