#!/usr/bin/env bash
# Client stubs in seven languages, all from proto/expertmesh/v1.
#
#   client/stubs/generate.sh [--language LANGUAGE]... [--system-plugins] OUTPUT_DIR
#
#   LANGUAGE           cpp, python, go, node, connect, java or rust; default: all of them
#   --system-plugins   plugins of protoc that are installed here, for python, go, node and connect
#
# What comes out, ready to be copied into a project:
#
#   OUTPUT_DIR/cpp/expertmesh/v1/       *.pb.h, *.pb.cc, *.grpc.pb.h, *.grpc.pb.cc
#   OUTPUT_DIR/python/expertmesh/v1/    *_pb2.py, *_pb2.pyi, *_pb2_grpc.py
#   OUTPUT_DIR/go/expertmesh/           the module expertmesh.dev/expertmesh: go.mod, go.sum, v1/*.go
#   OUTPUT_DIR/node/expertmesh/v1/      *.ts for @grpc/grpc-js; package.json and node_modules beside it
#   OUTPUT_DIR/connect/expertmesh/v1/   *_pb.ts for @connectrpc/connect-node; the same beside it
#   OUTPUT_DIR/java/proto/              a Maven module; its code is in target/generated-sources
#   OUTPUT_DIR/rust/expertmesh/         the crate expertmesh: Cargo.toml, src/*.rs
#
# Compilers come from the system (`deploy/packages.sh install --stubs`), plugins from the registry of
# their language, at versions pinned here and in the lock files beside; C++ takes gRPC's own of the
# system, which has to fit its libraries. A language whose tools are missing or too old ends the script
# with status 3, before anything of that language is touched; the rest is made all the same. Nothing is
# made again while nothing that it depends on has changed, and a registry is asked only for what was
# never fetched.
# shellcheck disable=SC2317,SC2329  # Functions are called by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=client/stubs/toolchain.sh
source "$here/toolchain.sh"
protos=("$root"/proto/expertmesh/v1/*.proto)

bad_usage() {
  echo "$0: $1" >&2
  sed -n '4s/^# *//p' "$0" >&2
  exit 2
}

languages=() out='' system=0
while (($#)); do
  case $1 in
    --language)
      (($# > 1)) || bad_usage "--language needs a value"
      [[ " ${known[*]} " == *" $2 "* ]] || bad_usage "--language is $2; known: ${known[*]}"
      languages+=("$2")
      shift
      ;;
    --system-plugins) system=1 ;;
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

# need_LANGUAGE: fails when a tool is missing or too old.
need_cpp() {
  need cpp protoc grpc_cpp_plugin
}

need_python() {
  need python python3
  at_least python python3 "$(python3 --version)" 3.9
  ((!system)) || python3 -c 'import grpc_tools' 2>/dev/null ||
    toolchain_missing python "python3 has no grpc_tools"
}

need_go() {
  need go protoc go
  at_least_protoc go
  at_least go go "$(go version)" 1.24
  ((!system)) || need go protoc-gen-go protoc-gen-go-grpc
}

need_npm() { # LANGUAGE, oldest Node.js, plugin
  need "$1" protoc node npm
  at_least_protoc "$1"
  at_least "$1" node "$(node --version)" "$2"
  ((!system)) || need "$1" "protoc-gen-$3"
}

need_node() {
  need_npm node 18 ts_proto
}

need_connect() {
  need_npm connect 20 es
}

need_java() {
  need java javac mvn
  at_least java javac "$(javac -version)" 17
  at_least java mvn "$(maven_version)" 3.8
}

# Its name may be in colours.
maven_version() {
  mvn --version | sed -n 's/.*Apache Maven \([0-9.]*\).*/\1/p'
}

need_rust() {
  need rust cargo
  at_least rust cargo "$(cargo --version)" 1.88
  cargo fetch --locked --quiet --manifest-path "$here/rust/Cargo.toml" 2>/dev/null ||
    toolchain_missing rust "its crates cannot be fetched"
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
  local venv=$out/python/.venv python=python3
  if ((!system)); then
    python=$venv/bin/python
    if ! "$python" -c 'import grpc_tools.protoc' 2>/dev/null ||
      [[ $("$python" -m pip freeze 2>/dev/null) != *"$(grpcio_tools)"* ]]; then
      rm -rf "$venv"
      quietly python3 -m venv "$venv"
      quietly "$python" -m pip install "$(grpcio_tools)"
    fi
  fi
  quietly "$python" -m grpc_tools.protoc -I "$root/proto" \
    --python_out="$1" --pyi_out="$1" --grpc_python_out="$1" "${protos[@]}"
}

generate_go() {
  local plugins=$out/go/.bin
  if ((!system)); then
    # From a module of their own: that of the stubs has no use for its plugins.
    quietly env GOBIN="$plugins" GOFLAGS= go install -C "$here/go/plugins" tool
  else
    plugins=$(dirname "$(command -v protoc-gen-go)")
  fi
  cp -r "$here/go/expertmesh" "$1/"
  PATH=$plugins:$PATH run_protoc \
    --go_out="$1/expertmesh" --go_opt=module=expertmesh.dev/expertmesh \
    --go-grpc_out="$1/expertmesh" --go-grpc_opt=module=expertmesh.dev/expertmesh
}

# npm_plugin LANGUAGE PLUGIN: the path of a plugin of protoc, which package-lock.json pins.
npm_plugin() {
  cp "$here/$1/package.json" "$here/$1/package-lock.json" "$out/$1/"
  quietly npm ci --prefix "$out/$1" --ignore-scripts --no-audit --no-fund --prefer-offline
  if ((system)); then command -v "$2"; else echo "$out/$1/node_modules/.bin/$2"; fi
}

# 64-bit integers are bigint: a number of JavaScript holds 53 bits.
generate_node() {
  local plugin
  plugin=$(npm_plugin node protoc-gen-ts_proto)
  run_protoc --plugin="$plugin" --ts_proto_out="$1" "${ts_proto[@]/#/--ts_proto_opt=}"
}

generate_connect() {
  local plugin
  plugin=$(npm_plugin connect protoc-gen-es)
  run_protoc --plugin="$plugin" --es_out="$1" "${protobuf_es[@]/#/--es_opt=}"
}

# Maven fetches protoc and its plugin, and keeps what did not change.
generate_java() {
  cp -r "$here/java/proto" "$1/"
  mkdir -p "$1/proto/src/main/proto/expertmesh/v1"
  cp "${protos[@]}" "$1/proto/src/main/proto/expertmesh/v1/"
  quietly_maven "$1/proto/pom.xml" generate-sources
}

# The generator is a crate of the same workspace, so one Cargo.lock pins all of it.
generate_rust() {
  cp -r "$here"/rust/{Cargo.toml,Cargo.lock,expertmesh,generate,examples} "$1/"
  quietly cargo run --manifest-path "$1/Cargo.toml" --target-dir "$out/rust/target" --locked \
    --package expertmesh-generate -- "$root/proto" "$1/expertmesh/src"
}

# What the files of a language are made from.
key() { # LANGUAGE
  local language=$1 sources=("$0" "$here/toolchain.sh" "${protos[@]}") tool
  case $language in
    cpp) sources+=("$(command -v grpc_cpp_plugin)") ;;
    python) sources+=("$root/client/python/pyproject.toml") ;;
    go) mapfile -t -O "${#sources[@]}" sources < <(find "$here"/go/{expertmesh,plugins} -type f | LC_ALL=C sort) ;;
    node | connect) sources+=("$here/$language/package.json" "$here/$language/package-lock.json") ;;
    java) mapfile -t -O "${#sources[@]}" sources < <(find "$here/java/proto" -type f | LC_ALL=C sort) ;;
    rust) mapfile -t -O "${#sources[@]}" sources < <(find "$here/rust" -type f | LC_ALL=C sort) ;;
  esac
  if ((system)); then
    echo "plugins of the system"
    # A plugin of the system says its version in ways of its own; its bytes always differ.
    for tool in protoc-gen-go protoc-gen-go-grpc protoc-gen-ts_proto protoc-gen-es; do
      if command -v "$tool" >/dev/null; then sources+=("$(command -v "$tool")"); fi
    done
  fi
  sha256sum "${sources[@]}" | sed 's/ .*//'
  case $language in
    python) python3 --version ;;
    java) javac -version && maven_version ;;
    rust) cargo --version ;;
    *) protoc --version ;;
  esac
  if [[ $language == go ]]; then go version; fi
}

generate() { # LANGUAGE
  local language=$1 folder=$out/$1 fresh made
  "need_$language"
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
