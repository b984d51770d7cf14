#!/usr/bin/env bash
# Gets the peer that the mesh is compared with, ggml out of the source distribution of
# llama-cpp-python (requirements.txt says which), and builds ggml-rpc-layer on it: prints the
# program's path. What it gets and makes lies in OUT (default build/ggml).
#
#   tests/bench/ggml/build.sh PYTHON [OUT]
set -euo pipefail

python=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${2:-$here/../../../build/ggml}
mkdir -p "$out"
out=$(cd "$out" && pwd)
log=$out/build.log

fail() {
  tail -n 20 "$log" >&2
  echo "build.sh: $1 (whole output: $log)" >&2
  exit 1
}

# A folder per version, and a stamp in it: a failed try leaves none.
version=$(sed -n 's/^\(llama-cpp-python==[0-9.]*\).*/\1/p' "$here/requirements.txt")
source=$out/$version
if [[ ! -e $source/.complete ]]; then
  echo "Getting $version from the package index" >&2
  rm -rf "$source"
  mkdir -p "$source"
  "$python" -m pip download --no-deps --no-binary llama-cpp-python --dest "$source" \
    --requirement "$here/requirements.txt" >"$log" 2>&1 ||
    fail "--ggml needs $version, and the package index could not be reached or does not have it"
  tar -xzf "$source"/*.tar.gz -C "$source" --strip-components=3 --wildcards \
    '*/vendor/llama.cpp/ggml' >>"$log" 2>&1 || fail "$version has no vendor/llama.cpp/ggml"
  touch "$source/.complete"
fi

echo "Building ggml ($out)" >&2
{
  cmake -S "$here" -B "$out/release" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_SOURCE="$source/ggml" &&
    cmake --build "$out/release" --target ggml-rpc-layer
} >"$log" 2>&1 || fail "the build failed"
echo "$out/release/ggml-rpc-layer"
