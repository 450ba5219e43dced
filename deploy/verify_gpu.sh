#!/usr/bin/env bash
# A step of a pipeline: is there a GPU here, and do the services of a deployment use one?
#
#     deploy/verify_gpu.sh [URL] [SERVICE]...      services: embedder reranker generator
#
# Without services: embedder and reranker. The report of raglan verify goes to stdout as JSON,
# everything else to stderr. Exit status 0: all is well; 1: something failed, or no GPU is here.
# Where the GPUs are on other machines than this one: raglan verify URL --gpu embedder.
set -euo pipefail

url=${1:-${RAGLAN_URL:-http://127.0.0.1:8080}}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- embedder reranker

if ! command -v nvidia-smi >/dev/null; then
  echo "nvidia-smi is not here: no NVIDIA driver, or a container that was not given the GPU." >&2
  exit 1
fi
if ! nvidia-smi --query-gpu=index,name,uuid,driver_version,memory.total --format=csv >&2; then
  echo "nvidia-smi found no GPU: is the driver loaded (lsmod | grep nvidia)?" >&2
  exit 1
fi

required=()
for service in "$@"; do required+=(--gpu "$service"); done
exec raglan verify "$url" --json "${required[@]}"
