"""Run the ingester: `python -m raglan_ingester`, settings from `RAGLAN_INGESTER_*`.

`python -m raglan_ingester migrate` migrates the database and ends. Every start does it as well;
apart, it can run before the first process of a new version, or with the rights of another user.
"""

from __future__ import annotations

import sys

from raglan import logs
from raglan.errors import RaglanError
from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_ingester.app import build, migrate
from raglan_ingester.settings import IngesterSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT, or migrate the database."""
    match sys.argv[1:]:
        case []:
            serve(build, IngesterSettings)
        case ["migrate"]:
            settings = load_or_exit(IngesterSettings)
            logs.configure(settings, "ingester")
            try:
                revision = migrate(settings)
            except RaglanError as error:
                raise SystemExit(error.message) from None
            sys.stdout.write(f"The database has schema {revision}.\n")
        case arguments:
            sys.stderr.write(f"{' '.join(arguments)}: the only command is migrate.\n")
            raise SystemExit(2)


if __name__ == "__main__":
    main()
