#!/usr/bin/env bash
# Measures a mesh on this machine beside what it could be at best, and writes figures and a report.
#
#   tests/bench/run.sh [--json FILE] [--html FILE] [--quick] [--runs N] [--shapes LIST] [--ggml]
#
#   --json FILE    figures (default build/bench/result.json); tests/bench/schema.py says what is in it
#   --html FILE    report to look at (default build/bench/report.html)
#   --quick        one short run of everything: for tests, not for figures
#   --runs N       runs of everything, of which medians are taken (default 5)
#   --shapes LIST  some of qwen3,olmoe,mixtral,deepseek_v3,tiny_experts (default: these), or tiny
#   --ggml         compare with ggml's RPC backend, too: gets its source from the package index and
#                  builds it (tests/bench/ggml)
#
# Installs and builds what is missing. Takes about twenty minutes and 10 GiB on two cores; leave the
# machine alone meanwhile.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
for flag in "$@"; do
  if [[ $flag == -h || $flag == --help ]]; then
    sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
    exit 0
  fi
done

log=$root/build/bench/build.log
quietly() {
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "run.sh: failed: $* (whole output: $log)" >&2
    exit 1
  fi
}

mkdir -p "$root/build/bench"
# ctest says which programs to measure; they are built then.
if [[ -z ${EXPERTMESH_BENCH_BASELINES:-} ]]; then
  "$root/deploy/packages.sh" install
  "$root/deploy/venv.sh"
  echo "Building (build/release)"
  quietly cmake -S "$root" --preset release -DEXPERTMESH_TESTS=ON
  quietly cmake --build "$root/build/release" \
    --target expertmesh-router expertmesh-expert expertmesh bench-baselines
  export EXPERTMESH_ROUTER=$root/build/release/router_service/expertmesh-router
  export EXPERTMESH_EXPERT=$root/build/release/expert_service/expertmesh-expert
  export EXPERTMESH_CLI=$root/build/release/client/cpp/expertmesh
  export EXPERTMESH_BENCH_BASELINES=$root/build/release/tests/bench/bench-baselines
fi
python=${EXPERTMESH_BENCH_PYTHON:-$root/build/venv/bin/python}
for flag in "$@"; do
  if [[ $flag == --ggml && -z ${EXPERTMESH_BENCH_GGML:-} ]]; then
    EXPERTMESH_BENCH_GGML=$("$root/tests/bench/ggml/build.sh" "$python")
    export EXPERTMESH_BENCH_GGML
  fi
done
exec "$python" "$root/tests/bench/bench.py" "$@"
