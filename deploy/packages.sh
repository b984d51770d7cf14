#!/usr/bin/env bash
# The Debian and Ubuntu packages that Expertmesh needs; the one place that names them.
#
#   deploy/packages.sh list    [--tests]   print them, one a line
#   deploy/packages.sh install [--tests]   install those that are missing (with sudo when not root)
#
# --tests adds what only tests/run.sh uses. Known: Debian 12 and 13, Ubuntu 24.04.
set -euo pipefail

usage() {
  sed -n '4,5s/^# *//p' "$0"
}

build_packages() {
  printf '%s\n' \
    build-essential pkg-config cmake ninja-build ccache lld git \
    libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev \
    libdnnl-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev libssl-dev \
    libgtest-dev libgmock-dev libbenchmark-dev \
    python3 python3-venv
}

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
  printf '%s\n' clang "$runtime"
}

wanted() {
  build_packages
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
    # git and python3 count as there when they run, whoever installed them.
    case $name in
      git | python3) if command -v "$name" >/dev/null; then continue; fi ;;
    esac
    if ! grep -qx "installed $name" <<<"$installed"; then
      printf '%s\n' "$name"
    fi
  done
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
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${packages[@]}"; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "$0: apt-get failed (above)" >&2
    return 1
  fi
}

tests=0
action=${1:-}
if (($#)); then
  shift
fi
for flag in "$@"; do
  case $flag in
    --tests) tests=1 ;;
    *)
      echo "$0: unknown flag $flag" >&2
      usage >&2
      exit 2
      ;;
  esac
done
case $action in
  list) wanted ;;
  install) install_missing ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
