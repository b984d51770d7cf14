#!/usr/bin/env bash
# Builds an example program against stubs that generate.sh made, and runs it.
#
#   client/stubs/example.sh LANGUAGE STUBS_DIR PROGRAM [ARGUMENT...]
#
#   LANGUAGE    cpp, python, node, go or java
#   STUBS_DIR   the OUTPUT_DIR of generate.sh; what is built goes there too
#   PROGRAM     forward ROUTER GOLDEN_DIR   calls a router that serves the checkpoint of
#                                           tests/golden/forward, and compares what it answers
#               wire MESSAGES               checks the stubs against tests/golden/wire/messages.txt
#               none                        builds both, and runs nothing
#
# The exit status is the program's (0: all as expected, 1: not, 2: bad usage), or 3 when the toolchain of the
# language is missing.
# shellcheck disable=SC2317  # Functions are called by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=client/stubs/toolchain.sh
source "$here/toolchain.sh"

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
case $language in
  cpp | python | node | go | java) ;;
  *) bad_usage "LANGUAGE is $language; known: cpp python node go java" ;;
esac
case $program in
  forward | wire | none) ;;
  *) bad_usage "PROGRAM is $program; known: forward wire none" ;;
esac
[[ -f $2/$language/.made ]] ||
  bad_usage "no $language stubs in $2; run client/stubs/generate.sh --language $language $2"
stubs=$(cd "$2/$language" && pwd)
shift 3

build_cpp() {
  need cpp cmake ninja c++
  quietly cmake -S "$here/cpp" -B "$stubs/build" -G Ninja -DSTUBS="$stubs"
  quietly cmake --build "$stubs/build"
}

run_cpp() {
  exec "$stubs/build/$program" "$@"
}

build_python() {
  need python python3
}

run_python() {
  PYTHONPATH=$stubs PYTHONDONTWRITEBYTECODE=1 exec "$stubs/.venv/bin/python" \
    "$here/python/$program.py" "$@"
}

# The compiler looks for packages beside the source, so the source goes to the packages.
build_node() {
  need node node npm
  cp "$here"/node/*.ts "$here/node/tsconfig.json" "$stubs/"
  quietly "$stubs/node_modules/.bin/tsc" -p "$stubs"
}

run_node() {
  exec node "$stubs/dist/$program.js" "$@"
}

# Debian has gRPC for Go as sources for GOPATH.
build_go() {
  need go go
  local one
  for one in forward wire; do
    quietly env GO111MODULE=off GOFLAGS= GOPATH="$stubs:/usr/share/gocode" \
      GOCACHE="$stubs/cache" go build -o "$stubs/bin/$one" "$here/go/$one/main.go"
  done
}

run_go() {
  exec "$stubs/bin/$program" "$@"
}

# Found by name in Debian's folder or in $EXPERTMESH_JARS; those after the first line are needed only at run time.
jars=(protobuf protobuf-util grpc-api grpc-stub grpc-protobuf guava geronimo-annotation-1.3-spec
  grpc-core grpc-netty grpc-context grpc-protobuf-lite gson perfmark-api
  netty-{buffer,codec,codec-http,codec-http2,common,handler,resolver,transport})

class_path() {
  local jar folder=${EXPERTMESH_JARS:-/usr/share/java} path='' missing=()
  for jar in "${jars[@]}"; do
    [[ -f $folder/$jar.jar ]] || missing+=("$jar.jar")
    path+=:$folder/$jar.jar
  done
  if ((${#missing[@]})); then
    # In a command substitution, set -e does not hold.
    toolchain_missing java "${missing[*]} in $folder" || return
  fi
  printf '%s' "${path#:}"
}

build_java() {
  need java java javac
  local path
  path=$(class_path)
  rm -rf "$stubs/classes"
  quietly javac -proc:none -nowarn -cp "$path" -d "$stubs/classes" \
    "$stubs"/expertmesh/v1/*.java "$here"/java/*.java
}

run_java() {
  local path
  path=$(class_path)
  # Ends as soon as it began: no time to optimise in.
  exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$stubs/classes:$path" "${program^}" "$@"
}

# What the programs are built from.
key() {
  cat "$stubs/.made"
  find "$here/$language" "$here/example.sh" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
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
