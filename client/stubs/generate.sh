#!/usr/bin/env bash
# Client stubs in five languages, all from proto/expertmesh/v1.
#
#   client/stubs/generate.sh [--language LANGUAGE]... OUTPUT_DIR
#
#   LANGUAGE   cpp, python, node (TypeScript), go or java; default: all of them
#
# What comes out, ready to be copied into a project:
#
#   OUTPUT_DIR/cpp/expertmesh/v1/       *.pb.h, *.pb.cc, *.grpc.pb.h, *.grpc.pb.cc
#   OUTPUT_DIR/python/expertmesh/v1/    *_pb2.py, *_pb2.pyi, *_pb2_grpc.py
#   OUTPUT_DIR/node/expertmesh/v1/      *.ts, for @grpc/grpc-js; package.json and node_modules beside it
#   OUTPUT_DIR/go/src/expertmesh/v1/    *.pb.go, *_grpc.pb.go
#   OUTPUT_DIR/java/expertmesh/v1/      *.java
#
# `deploy/packages.sh install --stubs` installs the compilers and the generators that Debian has. The others
# are fetched into OUTPUT_DIR at pinned versions: grpcio-tools with pip, ts-proto with npm. A language whose
# generator is not there ends the script with status 3, before anything of that language is touched; the
# rest is made all the same. Nothing is made again while nothing that it depends on has changed.
# shellcheck disable=SC2317  # Functions are called by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=client/stubs/toolchain.sh
source "$here/toolchain.sh"
known=(cpp python node go java)
protos=("$root"/proto/expertmesh/v1/*.proto)

bad_usage() {
  echo "$0: $1" >&2
  sed -n '4s/^# *//p' "$0" >&2
  exit 2
}

languages=() out=''
while (($#)); do
  case $1 in
    --language)
      (($# > 1)) || bad_usage "--language needs a value"
      [[ " ${known[*]} " == *" $2 "* ]] || bad_usage "--language is $2; known: ${known[*]}"
      languages+=("$2")
      shift
      ;;
    -h | --help)
      sed -n '2,/^set -euo/{/^set -euo/d;/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"
      exit 0
      ;;
    -*) bad_usage "unknown flag $1" ;;
    *)
      [[ -z $out ]] || bad_usage "more than one OUTPUT_DIR: $out and $1"
      out=$1
      ;;
  esac
  shift
done
[[ -n $out ]] || bad_usage "OUTPUT_DIR is missing"
((${#languages[@]})) || languages=("${known[@]}")
mkdir -p "$out"
out=$(cd "$out" && pwd)

run_protoc() {
  quietly protoc -I "$root/proto" "$@" "${protos[@]}"
}

# generate_LANGUAGE TARGET: writes the files that belong into OUTPUT_DIR/LANGUAGE below TARGET.
generate_cpp() {
  run_protoc --cpp_out="$1" --grpc_out="$1" \
    --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)"
}

# The version that the Python package is built with, too.
grpcio_tools() {
  sed -n 's/.*"\(grpcio-tools==[^"]*\)".*/\1/p' "$root/client/python/pyproject.toml"
}

# A Python environment of its own: grpcio-tools narrows the range of protobuf.
generate_python() {
  local venv=$out/python/.venv
  if ! "$venv/bin/python" -c 'import grpc_tools.protoc' 2>/dev/null ||
    [[ $("$venv/bin/python" -m pip freeze 2>/dev/null) != *"$(grpcio_tools)"* ]]; then
    rm -rf "$venv"
    quietly python3 -m venv "$venv"
    quietly "$venv/bin/python" -m pip install "$(grpcio_tools)"
  fi
  quietly "$venv/bin/python" -m grpc_tools.protoc -I "$root/proto" \
    --python_out="$1" --pyi_out="$1" --grpc_python_out="$1" "${protos[@]}"
}

# 64-bit integers are bigint: a number of JavaScript holds 53 bits.
generate_node() {
  cp "$here/node/package.json" "$here/node/package-lock.json" "$out/node/"
  quietly npm ci --prefix "$out/node" --ignore-scripts --no-audit --no-fund
  run_protoc --plugin="$out/node/node_modules/.bin/protoc-gen-ts_proto" --ts_proto_out="$1" \
    --ts_proto_opt=outputServices=grpc-js,env=node,esModuleInterop=true,importSuffix=.js \
    --ts_proto_opt=forceLong=bigint
}

generate_go() {
  mkdir "$1/src"
  run_protoc --go_out="$1/src" --go_opt=paths=source_relative \
    --go-grpc_out="$1/src" --go-grpc_opt=paths=source_relative
  printf 'module expertmesh\n\ngo 1.19\n' >"$1/src/expertmesh/go.mod"
}

generate_java() {
  run_protoc --java_out="$1" --grpc-java_out="$1" \
    --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)"
}

# What the files of a language are made from.
key() { # LANGUAGE
  local language=$1 sources=("$0" "${protos[@]}")
  case $language in
    node) sources+=("$here/node/package.json" "$here/node/package-lock.json") ;;
    python) sources+=("$root/client/python/pyproject.toml") ;;
  esac
  sha256sum "${sources[@]}" | sed 's/ .*//'
  if [[ $language == python ]]; then python3 --version; else protoc --version; fi
}

generate() { # LANGUAGE
  local language=$1 folder=$out/$1 fresh made
  case $language in
    cpp) need cpp protoc grpc_cpp_plugin ;;
    python) need python python3 ;;
    node) need node protoc node npm ;;
    go) need go protoc protoc-gen-go protoc-gen-go-grpc ;;
    java) need java protoc grpc_java_plugin ;;
  esac
  mkdir -p "$folder"
  # Two may generate into the same folder; the second then finds all done.
  exec 9>"$folder/.lock"
  flock 9
  made=$(key "$language")
  if [[ -f $folder/.made && $(<"$folder/.made") == "$made" ]]; then
    exec 9>&-
    return 0
  fi
  fresh=$folder/.fresh
  rm -rf "$fresh" "$folder/.made"
  mkdir "$fresh"
  "generate_$language" "$fresh"
  local entry
  for entry in "$fresh"/*; do
    rm -rf "${folder:?}/${entry##*/}"
    mv "$entry" "$folder/"
  done
  rmdir "$fresh"
  printf '%s\n' "$made" >"$folder/.made"
  exec 9>&-
  echo "$language: $folder"
}

status=0
for language in "${languages[@]}"; do
  # A shell of its own, and not in a condition, where set -e would not hold.
  set +e
  (set -e; generate "$language")
  code=$?
  set -e
  ((code == 0)) || status=$code
done
exit "$status"
