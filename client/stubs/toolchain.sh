# Read by generate.sh and example.sh.
# shellcheck shell=bash

# need LANGUAGE TOOL...: fails with status 3, naming the tools that are not there.
need() {
  local language=$1 tool missing=()
  shift
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || toolchain_missing "$language" "${missing[*]} on PATH"
}

toolchain_missing() { # LANGUAGE, what is not there
  echo "$0: $1: the toolchain is missing: no $2;" \
    "deploy/packages.sh install --stubs installs what Debian has" >&2
  return 3
}

# quietly COMMAND...: shows what it said only when it failed.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    echo "$0: failed: $*" >&2
    return 1
  fi
  rm -f "$log"
}
