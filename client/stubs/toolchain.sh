# Read by generate.sh, example.sh and package.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # They use these.
known=(cpp python go node connect java rust)

# Options of ts-proto and protobuf-es. The suffix is what Node's own modules ask for.
ts_proto=(outputServices=grpc-js env=node esModuleInterop=true importSuffix=.js forceLong=bigint)
protobuf_es=(target=ts import_extension=js)

# need LANGUAGE TOOL...: fails with status 3, naming the tools that are not there.
need() {
  local language=$1 tool missing=()
  shift
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || toolchain_missing "$language" "no ${missing[*]} on PATH"
}

# at_least LANGUAGE TOOL SAID WANTED: fails with status 3 when the version in what a tool said is older.
at_least() {
  local version
  version=$(grep -oE '[0-9]+(\.[0-9]+)*' <<<"$3" | head -n 1)
  [[ $(printf '%s\n' "$4" "$version" | sort -V | head -n 1) == "$4" ]] ||
    toolchain_missing "$1" "$2 is $version, $4 or later is needed"
}

# Before 3.15 protoc refuses a proto3 file with `optional`.
at_least_protoc() { # LANGUAGE
  at_least "$1" protoc "$(protoc --version)" 3.15
}

toolchain_missing() { # LANGUAGE, what is wrong
  echo "$0: $1: the toolchain is missing: $2;" \
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

# What gRPC and Google publish and no library of C++ or TypeScript has compiled.
third_party=(google/rpc/status.proto google/rpc/error_details.proto grpc/health/v1/health.proto
  grpc/reflection/v1/reflection.proto)

# third_party_descriptors FOLDER: makes FOLDER/third_party.binpb, which protoc reads for those.
third_party_descriptors() {
  local from python=$1/.third_party/bin/python
  from=$(dirname "${BASH_SOURCE[0]}")/third_party
  [[ -x $python ]] || quietly python3 -m venv "$1/.third_party"
  quietly "$python" -m pip install -r "$from/requirements.txt"
  quietly "$python" "$from/descriptors.py" "$1/third_party.binpb"
}

# quietly_maven POM ARGUMENT...: without the network where all is in Maven's own folder already.
quietly_maven() {
  local pom=$1
  shift
  mvn --quiet --batch-mode --offline --file "$pom" "$@" >/dev/null 2>&1 ||
    quietly mvn --quiet --batch-mode --no-transfer-progress --file "$pom" "$@"
}
