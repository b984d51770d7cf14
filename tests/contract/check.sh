#!/usr/bin/env bash
# Checks the contract with buf: its lint, and that nothing has changed on which others depend since the last
# release.
#
#   tests/contract/check.sh            both, and that both notice a planted change
#   tests/contract/check.sh release    makes proto/baseline.binpb of the contract as it is now
#
# The baseline is a file, since a clone need not have tags. Rules and exceptions: proto/buf.yaml. npm fetches buf
# into build/contract, at the version of package-lock.json. Exit status 3: there is no npm.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
baseline=$root/proto/baseline.binpb
tools=$root/build/contract

fetch_buf() {
  if ! command -v npm >/dev/null; then
    echo "$0: no npm on PATH; deploy/packages.sh install --stubs installs it" >&2
    exit 3
  fi
  mkdir -p "$tools"
  exec 9>"$tools/.lock"
  flock 9
  if ! cmp -s "$here/package-lock.json" "$tools/.fetched"; then
    cp "$here/package.json" "$here/package-lock.json" "$tools/"
    npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund >"$tools/npm.log" 2>&1 || {
      tail -n 20 "$tools/npm.log" >&2
      exit 1
    }
    cp "$here/package-lock.json" "$tools/.fetched"
  fi
  exec 9>&-
}

buf() {
  "$tools/node_modules/.bin/buf" "$@"
}

# planted COMMAND FILE SED_SCRIPT: what COMMAND says of a copy of the contract with a change in FILE; fails when
# it says nothing.
planted() {
  local copy
  copy=$(mktemp -d)
  cp -r "$root/proto/." "$copy"
  sed -i "$3" "$copy/$2"
  if cmp -s "$copy/$2" "$root/proto/$2"; then
    echo "$0: the planted change of $2 changes nothing: $3" >&2
    rm -r "$copy"
    return 1
  fi
  if (cd "$copy" && buf $1 >"$copy/.said"); then
    echo "$0: 'buf $1' says nothing of the planted change of $2: $3" >&2
    rm -r "$copy"
    return 1
  fi
  rm -r "$copy"
}

fetch_buf
case ${1:-} in
  '')
    (cd "$root/proto" && buf lint)
    (cd "$root/proto" && buf breaking --against "$baseline")
    planted "lint" expertmesh/v1/router.proto 's/  uint32 d_model = 3;/  uint32 dModel = 3;/'
    planted "breaking --against $baseline" expertmesh/v1/router.proto 's/ layer = 2;/ layer = 22;/'
    planted "breaking --against $baseline" expertmesh/v1/tensor.proto '/DTYPE_F16 = 3;/d'
    planted "breaking --against $baseline" expertmesh/v1/control.proto 's/rpc GetLoad(/rpc ReadLoad(/'
    echo "contract: lint and breaking are clean, and notice planted changes"
    ;;
  release) (cd "$root/proto" && buf build -o "$baseline#format=binpb" --exclude-source-info) ;;
  *)
    sed -n '5,6s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
