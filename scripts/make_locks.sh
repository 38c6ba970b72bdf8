#!/bin/sh
# Renew all hashed locks with uv: those of this checkout and those of the runtimes on GPU hosts.
# Versions that a lock has stay where they still hold. No index address is written into them.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "make_locks: no uv: pip install uv" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compile() { uv pip compile --no-config --quiet --universal --generate-hashes --no-annotate --no-header "$@"; }
# runtime NAME PYTHON REQUIREMENT...: templates/requirements/NAME.txt for that Python and newer.
runtime() {
  name=$1 python=$2
  shift 2
  printf '%s\n' "$@" > "$scratch/$name.in"
  compile --python-version "$python" --override "$scratch/override" \
    --output-file "templates/requirements/$name.txt" "$scratch/$name.in"
  echo "templates/requirements/$name.txt"
}

compile --python-version 3.11 --extra controller --extra dev --output-file requirements.txt pyproject.toml scripts/build.in
# vLLM 0.33.0 asks for certifi >= 2026.10.19, which was not on PyPI on 2026-11-23.
echo 'certifi>=2026.10.1' > "$scratch/override"
runtime vllm-0.33.0 3.11 vllm==0.33.0
runtime vllm-0.32.0 3.11 vllm==0.32.0
: > "$scratch/override"
runtime sglang-0.5.23 3.11 sglang==0.5.23
# llama-cpp-python comes as source: the tools that build it are locked beside it.
runtime llama-cpp-python-0.3.36 3.9 llama-cpp-python==0.3.36 scikit-build-core cmake ninja
runtime llama-cpp-python-server-0.3.36 3.9 'llama-cpp-python[server]==0.3.36' scikit-build-core cmake ninja
