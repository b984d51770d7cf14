#!/usr/bin/env bash
# The contract as a package of a language, built from this tree. Nothing is published.
#
#   client/stubs/package.sh LANGUAGE OUTPUT_DIR [STUBS_DIR]
#
#   python    expertmesh-VERSION-*.whl: the client of client/python, stubs included
#   go        a file tree that GOPROXY=file://OUTPUT_DIR/go serves: the module expertmesh.dev/expertmesh
#   node      expertmesh-grpc-js-VERSION.tgz, as ECMAScript and CommonJS modules, with types
#   connect   expertmesh-connect-VERSION.tgz, likewise
#   java      expertmesh-proto-VERSION.jar and its .pom
#   rust      expertmesh-VERSION.crate, with generated code: no build script, no protoc
#
# Each has the .proto files too, for protos that import them: the jar and the wheel at their top, the others in the
# folder proto. C++ is installed by CMake (client/README.md). VERSION is that of the top CMakeLists.txt. STUBS_DIR is the
# OUTPUT_DIR of generate.sh, and is brought up to date; default: OUTPUT_DIR/.stubs. The registries are asked only
# for what was never fetched. Status 3 when the toolchain of the language is missing.
# shellcheck disable=SC2317,SC2329  # Functions are called by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=client/stubs/toolchain.sh
source "$here/toolchain.sh"
packages=(python go node connect java rust)

bad_usage() {
  echo "$0: $1" >&2
  sed -n '4s/^# *//p' "$0" >&2
  exit 2
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set -euo/{/^set -euo/d;/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"
  exit 0
fi
(($# == 2 || $# == 3)) || bad_usage "give LANGUAGE, OUTPUT_DIR and perhaps STUBS_DIR"
language=$1
[[ " ${packages[*]} " == *" $language "* ]] ||
  bad_usage "LANGUAGE is $language; known: ${packages[*]}"
mkdir -p "$2"
out=$(cd "$2" && pwd)
stubs=${3:-$out/.stubs}
mkdir -p "$stubs"
stubs=$(cd "$stubs" && pwd)/$language
version=$(sed -n 's/^project(expertmesh VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")

# add_sources FOLDER: the licence, and the contract for protos that import it.
add_sources() {
  mkdir -p "$1/proto/expertmesh/v1"
  cp "$root/LICENSE" "$1/"
  cp "$root"/proto/expertmesh/v1/*.proto "$1/proto/expertmesh/v1/"
}

# staging [NAME]: an empty folder for what goes into the package.
staging() {
  rm -rf "$stubs/package"
  mkdir -p "$stubs/package/${1:-}"
  add_sources "$stubs/package/${1:-}"
}

# The environment of the stubs has grpcio-tools; setuptools is all that a build of the client lacks.
package_python() {
  quietly "$stubs/.venv/bin/python" -m pip install 'setuptools>=77' wheel
  quietly "$stubs/.venv/bin/python" -m pip wheel --no-deps --no-build-isolation \
    --wheel-dir "$out" "$root/client/python"
}

# What a proxy of Go modules serves is these files.
package_go() {
  need go python3
  local folder=$out/go/expertmesh.dev/expertmesh/@v name=expertmesh.dev/expertmesh@v$version
  staging "$name"
  cp -r "$stubs"/expertmesh/* "$stubs/package/$name/"
  mkdir -p "$folder"
  # Go refuses an archive that has folders as entries of their own, as `python3 -m zipfile` writes them.
  (cd "$stubs/package" && find "$name" -type f | LC_ALL=C sort | python3 -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
    for name in sys.stdin.read().splitlines():
        archive.write(name)' "$folder/v$version.zip")
  cp "$stubs/expertmesh/go.mod" "$folder/v$version.mod"
  printf '{"Version":"v%s"}\n' "$version" >"$folder/v$version.info"
  printf 'v%s\n' "$version" >"$folder/list"
}

# Once for each kind of module. The compiler takes the kind from the package.json beside the sources.
package_npm() {
  local kind
  staging
  for kind in module commonjs; do
    mkdir -p "$stubs/package/$kind" "$stubs/package/.$kind"
    printf '{ "type": "%s" }\n' "$kind" | tee "$stubs/package/.$kind/package.json" \
      >"$stubs/package/$kind/package.json"
    cp -r "$stubs/expertmesh" "$stubs/package/.$kind/"
    [[ ! -d $stubs/google ]] || cp -r "$stubs/google" "$stubs/package/.$kind/"
    find "$stubs/package/.$kind" -name '*.ts' -print0 |
      quietly xargs -0 "$stubs/node_modules/.bin/tsc" --strict --declaration --skipLibCheck \
        --target ES2022 --module NodeNext --types node --typeRoots "$stubs/node_modules/@types" \
        --rootDir "$stubs/package/.$kind" --outDir "$stubs/package/$kind"
  done
  cp "$here/$language/package.json" "$stubs/package/"
  (cd "$stubs/package" && quietly npm pack --ignore-scripts --pack-destination "$out")
}

package_node() {
  package_npm
}

package_connect() {
  package_npm
}

package_java() {
  mkdir -p "$stubs/proto/src/main/resources/META-INF"
  cp "$root/LICENSE" "$stubs/proto/src/main/resources/META-INF/"
  quietly_maven "$stubs/proto/pom.xml" package
  cp "$stubs/proto/target/expertmesh-proto-$version.jar" "$out/"
  cp "$stubs/proto/pom.xml" "$out/expertmesh-proto-$version.pom"
}

package_rust() {
  add_sources "$stubs/expertmesh"
  local package=(cargo package --manifest-path "$stubs/Cargo.toml" --target-dir "$stubs/target"
    --package expertmesh --allow-dirty --no-verify)
  "${package[@]}" --offline >/dev/null 2>&1 || quietly "${package[@]}"
  cp "$stubs/target/package/expertmesh-$version.crate" "$out/"
}

"$here/generate.sh" --language "$language" "${stubs%/*}"
exec 9>"$stubs/.lock"
flock 9
"package_$language"
exec 9>&-
echo "$language: version $version is in $out"
