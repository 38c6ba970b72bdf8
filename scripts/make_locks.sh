#!/bin/sh
# Renew all hashed locks with uv. No index address is written into them.
set -eu
cd "$(dirname "$0")/.."
compile() { uv pip compile --no-config --quiet --universal --generate-hashes --no-annotate --no-header "$@"; }
compile --python-version 3.11 --extra controller --extra dev --output-file requirements.txt pyproject.toml scripts/build.in
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo 'vllm==0.33.0' > "$scratch/vllm.in"
echo 'certifi>=2026.10.1' > "$scratch/override.in"
compile --python-version 3.11 --override "$scratch/override.in" \
  --output-file templates/requirements/vllm-0.33.0.txt "$scratch/vllm.in"
printf '%s\n' 'llama-cpp-python==0.3.36' scikit-build-core cmake ninja > "$scratch/llama.in"
compile --python-version 3.9 \
  --output-file templates/requirements/llama-cpp-python-0.3.36.txt "$scratch/llama.in"
