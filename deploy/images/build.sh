#!/usr/bin/env bash
# Build images: deploy/images/build.sh [IMAGE...], by default every one that runs on a CPU. An image
# is base, encoders, cli or a service; with -gpu or -vllm behind it, its variant: embedder-gpu,
# reranker-gpu (encoders-gpu first), generator-vllm. `make images` calls this.
#
#   ENGINE         docker or podman; the one that is there
#   BUILD_OPTIONS  further options of `ENGINE build`: --build-arg BASE_IMAGE=..., --secret id=pip_conf,src=...
set -euo pipefail
cd "$(dirname "$0")/../.."

for candidate in podman docker; do
  if [ -z "${ENGINE:-}" ] && command -v "$candidate" >/dev/null; then ENGINE=$candidate; fi
done
: "${ENGINE:?neither podman nor docker is installed; set ENGINE}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' services/common/pyproject.toml)
read -ra options <<<"${BUILD_OPTIONS:-}"
options+=(--build-arg "VERSION=$version")
# The other format of podman has no health checks.
if "$ENGINE" --version | grep -qi podman; then options+=(--format docker); fi

build() { # NAME[:TAG] DOCKERFILE [OPTION...]
  local name=$1 file=$2
  shift 2
  echo "--- raglan/$name"
  "$ENGINE" build "${options[@]}" "$@" --file "$file" --tag "raglan/$name" .
}

revision() { echo "org.opencontainers.image.revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)"; }

image() {
  local name=$1 gpu=(--build-arg EXTRAS=encoders,torch,gpu --build-arg TORCH_INDEX=)
  case $name in
    base)
      build "build:$version" deploy/images/base.Dockerfile --target build
      build "base:$version" deploy/images/base.Dockerfile
      ;;
    encoders) build "encoders:$version" deploy/images/encoders.Dockerfile ;;
    encoders-gpu) build "encoders:$version-gpu" deploy/images/encoders.Dockerfile "${gpu[@]}" ;;
    embedder-gpu | reranker-gpu)
      build "${name%-gpu}:$version-gpu" "services/${name%-gpu}/Dockerfile" \
        --build-arg VARIANT=-gpu --label "$(revision)"
      ;;
    generator-vllm)
      build "generator:$version-vllm" services/generator/vllm.Dockerfile --label "$(revision)"
      ;;
    cli) build "cli:$version" cli/Dockerfile --label "$(revision)" ;;
    *) build "$name:$version" "services/$name/Dockerfile" --label "$(revision)" ;;
  esac
}

[ $# -gt 0 ] || set -- base encoders gateway embedder retriever reranker generator ingester tracer cli
for name in "$@"; do image "$name"; done
