#!/usr/bin/env bash
# The Debian and Ubuntu packages that Expertmesh needs; the one place that names them.
#
#   deploy/packages.sh list    [--tests] [--stubs] [--observability] [--training] [--cuda]
#       prints them, one a line
#   deploy/packages.sh install [--tests] [--stubs] [--observability] [--training] [--cuda]
#       installs those that are missing (with sudo when not root)
#
# --tests adds what only tests/run.sh uses, --stubs the toolchains of client/stubs (Node.js, Go, Java with
# Maven, and Rust: client/stubs says which of them a release has too old), --observability those that
# deploy/observability is made with and looked at with (Go, Java with Maven, a browser),
# --training the text that client/python/examples/train_demo.py reads. --cuda brings the CUDA toolkit, which is none of
# them, by deploy/cuda.sh, where there is none of the system.
# Known: Debian 12 and 13, Ubuntu 24.04.
set -euo pipefail

usage() {
  sed -n '4,7s/^# *//p' "$0"
}

build_packages() {
  printf '%s\n' \
    build-essential pkg-config cmake ninja-build ccache lld git \
    libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev \
    libhwy-dev libdnnl-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev libcivetweb-dev libssl-dev zlib1g-dev \
    libonig-dev libutf8proc-dev libxxhash-dev \
    libgtest-dev libgmock-dev libbenchmark-dev \
    python3 python3-venv
}

# prometheus: promtool, and a server that tests start on ports of their own. nodejs and chromium run the page of
# router_service/console.
# clang's runtime carries the version of the release's clang in its name.
test_packages() {
  local codename='' runtime
  if [[ -r /etc/os-release ]]; then
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  fi
  case $codename in
    trixie) runtime=libclang-rt-19-dev ;;
    noble) runtime=libclang-rt-18-dev ;;
    *) runtime=libclang-rt-14-dev ;;
  esac
  printf '%s\n' clang "$runtime" prometheus nodejs chromium
}

# For the stubs of each language beside C++ and Python. Generators and runtimes come from the registries of
# the languages.
stub_packages() {
  printf '%s\n' nodejs npm golang-go default-jdk-headless maven cargo
}

# Prometheus comes unpacked (deploy/observability/build.sh): installed, it would start by itself.
observability_packages() {
  printf '%s\n' golang-go default-jdk-headless maven chromium
}

wanted() {
  each_wanted | awk '!seen[$0]++'
}

each_wanted() {
  build_packages
  if ((training)); then
    printf '%s\n' bible-kjv bible-kjv-text
  fi
  if ((stubs)); then
    stub_packages
  fi
  if ((observability)); then
    observability_packages
  fi
  if ((tests)); then
    test_packages
  fi
}

missing() {
  local installed
  mapfile -t names < <(wanted)
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${names[@]}" 2>/dev/null || true)
  local name
  for name in "${names[@]}"; do
    # These count as installed when they run, even if they came from elsewhere.
    case $name in
      git | npm | python3) if command -v "$name" >/dev/null; then continue; fi ;;
      nodejs) if command -v node >/dev/null; then continue; fi ;;
      golang-go) if command -v go >/dev/null; then continue; fi ;;
      default-jdk-headless) if command -v javac >/dev/null; then continue; fi ;;
      chromium) if command -v chromium >/dev/null; then continue; fi ;;
      maven) if command -v mvn >/dev/null; then continue; fi ;;
      cargo) if command -v cargo >/dev/null; then continue; fi ;;
    esac
    if ! grep -qx "installed $name" <<<"$installed"; then
      printf '%s\n' "$name"
    fi
  done
}

# A release that lacks some language's packages still gets the others; client/stubs says what it misses, and so
# does what wants a browser.
leave_out_unknown() {
  local name kept=()
  for name in "${packages[@]}"; do
    if grep -qx "$name" < <(stub_packages && observability_packages) && ! apt-cache show "$name" >/dev/null 2>&1; then
      echo "$0: this release has no package $name; left out" >&2
    else
      kept+=("$name")
    fi
  done
  packages=("${kept[@]}")
}

install_missing() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "$0: this machine has no apt; install the counterparts of these yourself:" >&2
    wanted | paste -sd' ' >&2
    return 1
  fi
  local packages
  mapfile -t packages < <(missing)
  if ((${#packages[@]} == 0)); then
    return 0
  fi
  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "$0: neither root nor sudo here; as root run: apt-get install ${packages[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing with ${as_root[*]:+sudo }apt-get: ${packages[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  # stdin stays: sudo may have to ask.
  if ! "${apt[@]}" update >"$log" 2>&1; then
    apt_failed
  fi
  leave_out_unknown
  if ((${#packages[@]})) &&
    ! "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1; then
    apt_failed
  fi
}

apt_failed() {
  tail -n 20 "$log" >&2
  echo "$0: apt-get failed (above)" >&2
  exit 1
}

tests=0 stubs=0 observability=0 training=0 cuda=0
action=${1:-}
if (($#)); then
  shift
fi
for flag in "$@"; do
  case $flag in
    --tests) tests=1 ;;
    --stubs) stubs=1 ;;
    --observability) observability=1 ;;
    --training) training=1 ;;
    --cuda) cuda=1 ;;
    *)
      echo "$0: unknown flag $flag" >&2
      usage >&2
      exit 2
      ;;
  esac
done
case $action in
  list) wanted ;;
  install)
    install_missing
    if ((cuda)); then
      "$(dirname "${BASH_SOURCE[0]}")/cuda.sh" install
    fi
    ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
