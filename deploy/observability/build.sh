#!/usr/bin/env bash
# Fetches or builds what up.sh runs, once for each version (deploy/observability/versions), into build/observability:
# Prometheus (the release's own package), the OpenTelemetry Collector, Jaeger, Zipkin. Prints nothing when there is
# nothing to do. Nothing is installed in the system, so that no service starts by itself.
#
#   deploy/observability/build.sh
#
# The first time it takes 15 minutes on two cores, with one job at a time at the lowest priority.
# EXPERTMESH_OBSERVABILITY is another folder for it all, say one that several trees share.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${EXPERTMESH_OBSERVABILITY:-$(cd "$here/../.." && pwd)/build/observability}
# shellcheck source=/dev/null
source "$here/versions"
# What the modules ask for; Go fetches a newer one by itself from 1.21 on.
least_go=1.21 least_java=17

if (($#)); then
  sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
  [[ $1 == -h || $1 == --help ]] && exit 0
  exit 2
fi

die() {
  echo "$0: $*" >&2
  exit 1
}

# quietly WHAT COMMAND...: its output is shown when it failed.
quietly() {
  local log=$cache/$1.log
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    die "failed: $* (whole output: $log)"
  fi
}

# at_least TOOL VERSION WANTED
at_least() {
  [[ $(printf '%s\n' "$3" "$2" | sort -V | head -n 1) == "$3" ]] ||
    die "$1 is $2, $3 or later is needed"
}

need_go() {
  command -v go >/dev/null || die "there is no go; deploy/packages.sh install --observability installs it"
  at_least go "$(go env GOVERSION | sed 's/^go//')" "$least_go"
}

# In its own turn and out of the way of others.
go_gently() {
  nice -n 19 env GOFLAGS='-p=1 -buildvcs=false -trimpath' CGO_ENABLED=0 GOTOOLCHAIN=auto "$@"
}

# once FOLDER FUNCTION: makes the folder by the function, which fills FOLDER.new; whole or not at all.
once() {
  local folder=$cache/$1
  [[ ! -d $folder ]] || return 0
  echo "Making ${folder#"$PWD/"}"
  rm -rf "$folder.new"
  mkdir -p "$folder.new"
  "$2" "$folder.new"
  mv "$folder.new" "$folder"
}

# In a copy of its module: it has replacements, which count in a main module alone.
make_jaeger() { # folder
  need_go
  local source
  source=$(go_gently go mod download -json "github.com/jaegertracing/jaeger@$jaeger" |
    sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  [[ -d $source ]] || die "the module of Jaeger $jaeger cannot be had"
  cp -r "$source" "$1/source"
  chmod -R u+w "$1/source"
  quietly jaeger go_gently go build -C "$1/source" -ldflags=-s -o "$1/jaeger" ./cmd/jaeger
  rm -rf "$1/source"
}

make_collector() { # folder
  need_go
  sed "s,VERSION,$collector,; s,OUTPUT,$1/source," "$here/collector/builder.yaml" >"$1/builder.yaml"
  quietly collector go_gently env GOBIN="$1" go install "go.opentelemetry.io/collector/cmd/builder@$collector"
  # Not strict: some modules of this version ask for patch releases of others.
  quietly collector go_gently "$1/builder" --config "$1/builder.yaml" --skip-strict-versioning
  mv "$1/source/collector" "$1/"
  rm -rf "$1/source" "$1/builder"
}

make_zipkin() { # folder
  command -v mvn >/dev/null || die "there is no mvn; deploy/packages.sh install --observability installs it"
  at_least java "$(java -version 2>&1 | sed -n 's/.*version "\([0-9.]*\).*/\1/p')" "$least_java"
  quietly zipkin mvn --batch-mode --no-transfer-progress \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy \
    -Dartifact="io.zipkin:zipkin-server:$zipkin:jar:exec" -DoutputDirectory="$1" -Dmdep.stripVersion=true
}

# Unpacked: as an installed package it would start a service of its own on all addresses.
make_prometheus() { # folder
  command -v apt-get >/dev/null || die "there is no apt-get; put prometheus and promtool on PATH"
  mkdir -p "$1/partial"
  quietly prometheus apt-get install -y -qq -d --no-install-recommends --reinstall \
    -o "Dir::Cache::archives=$1" -o Debug::NoLocking=1 prometheus
  local package
  for package in "$1"/*.deb; do
    dpkg -x "$package" "$1"
  done
  rm -rf "$1"/*.deb "$1/partial" "$1/lock"
}

mkdir -p "$cache"
# One at a time; what another one makes meanwhile is then there.
exec 8>"$cache/lock"
flock 8
if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
  once prometheus make_prometheus
fi
once "zipkin-$zipkin" make_zipkin
# What it is made of is as much part of it as its version.
parts=$(sha256sum <"$here/collector/builder.yaml" | cut -c1-8)
once "collector-$collector-$parts" make_collector
once "jaeger-$jaeger" make_jaeger
