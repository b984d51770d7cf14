#!/usr/bin/env bash
# Makes (or brings up to date) build/venv: Python with the expertmesh package, numpy, pytest, hdrhistogram,
# tree-sitter with its C++ grammar, OpenTelemetry, PyYAML and Grafana's SDK for dashboards, for tests, benchmarks and
# examples. Prints nothing when there is nothing to do.
#
#   deploy/venv.sh [--with-transformers]
#
# --with-transformers adds torch and transformers, for the tests against real models.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/build/venv
base=(numpy pytest hdrhistogram prometheus-client==0.23.1 tree-sitter==0.25.2 tree-sitter-cpp==0.23.4 pyyaml==6.0.4
  'grafana-foundation-sdk==1769699379!11.6.0' playwright==1.65.2
  opentelemetry-sdk==1.45.2 opentelemetry-proto==1.45.2 opentelemetry-exporter-otlp-proto-grpc==1.45.2)
transformers=(torch==2.13.0 transformers==4.57.6 safetensors)

with_transformers=0
for flag in "$@"; do
  case $flag in
    --with-transformers) with_transformers=1 ;;
    *)
      echo "$0: unknown flag $flag" >&2
      sed -n '6s/^# *//p' "$0" >&2
      exit 2
      ;;
  esac
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT

quietly() {
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "$0: failed: $*" >&2
    exit 1
  fi
}

# install NAME KEY PACKAGE...: once per KEY.
install() {
  local stamp=$venv/.expertmesh-$1 key=$2
  shift 2
  if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then
    return
  fi
  echo "Installing into build/venv with pip: ${*/#$root\//}"
  quietly "$venv/bin/python" -m pip install "$@"
  printf '%s\n' "$key" >"$stamp"
}

sources_key() {
  (cd "$root" &&
    find client/python proto -type f \( -name '*.py' -o -name '*.proto' -o -name 'pyproject.toml' \) \
      ! -name '*_pb2*' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
}

# A venv whose Python was removed or replaced does not run any more.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  quietly python3 -m venv "$venv"
fi
install base "${base[*]}" "${base[@]}"
if ((with_transformers)); then
  install transformers "${transformers[*]}" "${transformers[@]}"
fi
install client "$(sources_key)" "$root/client/python"
