#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is gone afterwards:
#     tests/with_postgres.sh make test-ingester
# The server's address is in RAGLAN_INGESTER_DATABASE_URL.
set -euo pipefail
binaries=$(dirname "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" 2>/dev/null)
[ -x "$binaries/initdb" ] || { echo "PostgreSQL's server is needed: apt-get install postgresql" >&2; exit 1; }
folder=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# PostgreSQL refuses to run as root.
as_owner() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
if [ "$(id -u)" = 0 ]; then chown postgres: "$folder"; fi
cleanup() { as_owner "$binaries/pg_ctl" -D "$folder/data" -m immediate -s stop || true; rm -rf "$folder"; }
trap cleanup EXIT

cd /
as_owner "$binaries/initdb" -D "$folder/data" -U raglan --auth=trust >/dev/null
as_owner "$binaries/pg_ctl" -D "$folder/data" -l "$folder/log" -w -s \
  -o "-c listen_addresses=127.0.0.1 -p $port -k $folder -c fsync=off -c max_connections=300" start
cd - >/dev/null
RAGLAN_INGESTER_DATABASE_URL="postgresql://raglan@127.0.0.1:$port/postgres" "$@"
