#!/usr/bin/env bash
# How long a new user waits: an empty clone, `make run`, until the mesh is ready; then a second start.
set -euo pipefail
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
folder=$(mktemp -d)
mesh=""
trap '[ -z "$mesh" ] || kill -TERM "$mesh" 2>/dev/null || true; [ -z "$mesh" ] || wait "$mesh" || true; rm -rf "$folder"' EXIT
git clone --quiet "$repository" "$folder/clone"
cd "$folder/clone"
export HOME="$folder/home" RAGLAN_GATEWAY_PORT="${PORT:-18099}"
export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$(getent passwd "$(id -u)" | cut -d: -f6)/.cache/pip}"
mkdir -p "$HOME"

seconds_until_ready() {
  local begun=$SECONDS
  make run >"$folder/run.log" 2>&1 &
  mesh=$!
  until curl -fs "http://127.0.0.1:$RAGLAN_GATEWAY_PORT/readyz" 2>/dev/null | grep -vq -e unreachable -e not_serving; do
    kill -0 "$mesh" || { cat "$folder/run.log"; exit 1; }
    sleep 0.2
  done
  took=$((SECONDS - begun))
}

stop() {
  pkill -TERM -P "$mesh" || true
  kill -TERM "$mesh" 2>/dev/null || true
  wait "$mesh" || true
  mesh=""
}

seconds_until_ready; cold=$took; stop
seconds_until_ready; warm=$took; stop
cd "$repository"
PYTHONPATH=bench .venv/bin/python - "$cold" "$warm" <<'PY'
import sys
from report import Row, publish
cold, warm = map(float, sys.argv[1:])
publish("start", [
    Row("cold `make run`, warm package cache", "s", cold, "<= 180"),
    Row("second start", "s", warm, "<= 15"),
])
PY
