#!/usr/bin/env bash
# Builds an example program against stubs that generate.sh made, and runs it.
#
#   client/stubs/example.sh LANGUAGE STUBS_DIR PROGRAM [ARGUMENT...]
#
#   LANGUAGE    cpp, python, go, node, connect, java or rust
#   STUBS_DIR   the OUTPUT_DIR of generate.sh; what is built goes there too
#   PROGRAM     quickstart ROUTER           the smallest useful program: one call of layer 1 of a model
#                                           whose hidden states have 32 values
#               forward ROUTER GOLDEN_DIR   calls a router that serves the checkpoint of
#                                           tests/golden/forward, and compares what it answers
#               check ROUTER GOLDEN_DIR     the same router: "COLUMN yes" or "COLUMN no: why" for unary,
#                                           stream, watch, health, reflection, big (60 MB both ways: start
#                                           the router with --max-tokens-in-flight=1000000 and the node
#                                           with --max-queue-rows=1000000), errors and bits
#               wire MESSAGES               checks the stubs against tests/golden/wire/messages.txt
#               none                        builds them, and runs nothing
#
# The exit status is the program's (0: all as expected, 1: not, 2: bad usage), or 3 when the toolchain of the
# language is missing.
# shellcheck disable=SC2317,SC2329  # Functions are called by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=client/stubs/toolchain.sh
source "$here/toolchain.sh"
programs=(quickstart forward check wire none)

bad_usage() {
  echo "$0: $1" >&2
  sed -n '4s/^# *//p' "$0" >&2
  exit 2
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set -euo/{/^set -euo/d;/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"
  exit 0
fi
(($# >= 3)) || bad_usage "LANGUAGE, STUBS_DIR or PROGRAM is missing"
language=$1 program=$3
[[ " ${known[*]} " == *" $language "* ]] ||
  bad_usage "LANGUAGE is $language; known: ${known[*]}"
[[ " ${programs[*]} " == *" $program "* ]] ||
  bad_usage "PROGRAM is $program; known: ${programs[*]}"
[[ -f $2/$language/.made ]] ||
  bad_usage "no $language stubs in $2; run client/stubs/generate.sh --language $language $2"
stubs=$(cd "$2/$language" && pwd)
shift 3

build_cpp() {
  need cpp cmake ninja c++ python3
  third_party_descriptors "$stubs"
  quietly cmake -S "$here/cpp" -B "$stubs/build" -G Ninja -DSTUBS="$stubs"
  quietly cmake --build "$stubs/build"
}

run_cpp() {
  exec "$stubs/build/$program" "$@"
}

build_python() {
  need python python3
  [[ -x $stubs/.venv/bin/python ]] || quietly python3 -m venv "$stubs/.venv"
  quietly "$stubs/.venv/bin/python" -m pip install -r "$here/python/requirements.txt"
}

run_python() {
  PYTHONPATH=$stubs PYTHONDONTWRITEBYTECODE=1 exec "$stubs/.venv/bin/python" \
    "$here/python/$program.py" "$@"
}

# fresh_examples [FILE...]: copies the examples to the stubs that they import.
fresh_examples() {
  rm -rf "$stubs/examples"
  cp -r "$here/$language/examples" "$stubs/"
  (($# == 0)) || cp "$@" "$stubs/examples/"
}

build_go() {
  need go go
  fresh_examples
  quietly env GOFLAGS= go build -C "$stubs/examples" -o "$stubs/bin/" ./...
}

run_go() {
  exec "$stubs/bin/$program" "$@"
}

# build_npm OPTION...: what no package of npm has compiled is generated beside the examples.
build_npm() {
  need "$language" protoc node npm python3
  third_party_descriptors "$stubs"
  quietly protoc --descriptor_set_in="$stubs/third_party.binpb" "$@" "${third_party[@]}"
  quietly "$stubs/node_modules/.bin/tsc" -p "$stubs/examples"
}

build_node() {
  fresh_examples
  build_npm --plugin="$stubs/node_modules/.bin/protoc-gen-ts_proto" \
    --ts_proto_out="$stubs/examples" "${ts_proto[@]/#/--ts_proto_opt=}"
}

build_connect() {
  fresh_examples "$here/node/examples/tensors.ts"
  build_npm --plugin="$stubs/node_modules/.bin/protoc-gen-es" \
    --es_out="$stubs/examples" "${protobuf_es[@]/#/--es_opt=}"
}

run_node() {
  exec node "$stubs/dist/examples/$program.js" "$@"
}

run_connect() {
  run_node "$@"
}

build_java() {
  need java java mvn
  fresh_examples
  cp "$here/java/pom.xml" "$stubs/"
  quietly_maven "$stubs/pom.xml" compile
}

run_java() {
  local built=$stubs/examples/target
  # Ends as soon as it began: no time to optimise in.
  exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -cp "$built/classes:$(<"$built/class-path")" "${program^}" "$@"
}

build_rust() {
  need rust cargo
  fresh_examples
  quietly cargo build --manifest-path "$stubs/Cargo.toml" --target-dir "$stubs/target" --locked \
    --package expertmesh-examples
}

run_rust() {
  exec "$stubs/target/debug/$program" "$@"
}

# What the programs are built from.
key() {
  cat "$stubs/.made"
  find "$here"/{"$language",third_party,node/examples/tensors.ts,example.sh,toolchain.sh} \
    -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}

exec 9>"$stubs/.lock"
flock 9
made=$(key)
if [[ ! -f $stubs/.built || $(<"$stubs/.built") != "$made" ]]; then
  rm -f "$stubs/.built"
  "build_$language"
  printf '%s\n' "$made" >"$stubs/.built"
fi
exec 9>&-
[[ $program == none ]] || "run_$language" "$@"
