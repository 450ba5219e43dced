#!/bin/sh
# Makes .env and the files of secrets/ that are missing. Changes nothing that exists.
set -eu
cd "$(dirname "$0")"

[ -e .env ] || { cp .env.example .env && echo "made .env"; }

# The folder is closed to other users. The files are not: containers read them as users of their own.
umask 022
[ -d secrets ] || mkdir -m 700 secrets
for name in postgres_password redis_password gateway_admin_key qdrant_api_key grafana_admin_password; do
  [ -e "secrets/$name" ] || {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
    echo "made secrets/$name"
  }
done
# Of servers that are not part of the mesh: empty until you write one.
for name in embedder_api_key reranker_api_key generator_api_key huggingface_token; do
  [ -e "secrets/$name" ] || { : > "secrets/$name" && echo "made secrets/$name, empty"; }
done

# For compose.sources.yaml, whose containers read them as users of their own.
[ -d sources/documents ] || mkdir -p sources/documents
[ -e sources/sources.yaml ] || { echo "sources: []" > sources/sources.yaml && echo "made sources/sources.yaml"; }
