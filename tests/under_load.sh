#!/usr/bin/env bash
# Runs a command while every core has another process that never rests:
#     tests/under_load.sh make test
set -euo pipefail
busy=()
trap 'kill "${busy[@]}"' EXIT
for _ in $(seq "$(nproc)"); do
  bash -c 'while :; do :; done' &
  busy+=($!)
done
"$@"
