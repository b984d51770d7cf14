#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests; ends with ctest's summary.
#
#   tests/run.sh [--quick] [--asan] [--tsan] [--with-transformers] [--mutation]
#
#   --quick               unit tests only
#   --asan, --tsan        with AddressSanitizer and UndefinedBehaviorSanitizer, or ThreadSanitizer,
#                         instead of the release build (both: one after the other)
#   --with-transformers   also the tests against real models of the transformers library, which always
#                         use the release build
#   --mutation            also the check that the unit tests notice deliberately wrong variants of the code
#                         (tests/mutation/mutations.py lists them), in the release build
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

quick=0 with_transformers=0 mutation=0 presets=()
for flag in "$@"; do
  case $flag in
    --quick) quick=1 ;;
    --asan) presets+=(asan) ;;
    --tsan) presets+=(tsan) ;;
    --with-transformers) with_transformers=1 ;;
    --mutation) mutation=1 ;;
    -h | --help)
      sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
      exit 0
      ;;
    *)
      echo "tests/run.sh: unknown flag $flag" >&2
      sed -n '4s/^# *//p' "$0" >&2
      exit 2
      ;;
  esac
done
if ((${#presets[@]} == 0)); then
  presets=(release)
fi

# Undefined behaviour ends the program as the other sanitizers' findings do. Debian's libraries are not
# instrumented, so ThreadSanitizer must not judge what it cannot see of them.
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-ignore_noninstrumented_modules=1}

build() { # preset
  echo "== Building preset $1"
  cmake --preset "$1" -DEXPERTMESH_TESTS=ON \
    -DEXPERTMESH_PYTHON="$root/build/venv/bin/python" >"build/configure-$1.log" 2>&1 ||
    {
      tail -n 30 "build/configure-$1.log" >&2
      return 1
    }
  if [[ -t 1 ]]; then
    cmake --build "build/$1"
  else
    cmake --build "build/$1" -- --quiet
  fi
}

run_ctest() { # preset, ctest arguments
  local preset=$1
  shift
  echo "== Testing preset $preset"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" "$@"
}

failed=0
run_preset() { # preset
  build "$1"
  local labels=(-LE '^(transformers|mutation)$')
  if ((quick)); then
    labels=(-L '^unit$')
  elif ((with_transformers)) && [[ $1 == release ]]; then
    labels=(-LE '^mutation$')
  fi
  run_ctest "$1" "${labels[@]}" || failed=1
}

package_flags=(--tests)
if ((!quick)); then
  package_flags+=(--stubs)
fi
deploy/packages.sh install "${package_flags[@]}"
venv_flags=()
if ((with_transformers)); then
  venv_flags=(--with-transformers)
fi
deploy/venv.sh "${venv_flags[@]}"
for preset in "${presets[@]}"; do
  run_preset "$preset"
done
if ((with_transformers)) && [[ " ${presets[*]} " != *' release '* || $quick -eq 1 ]]; then
  build release
  run_ctest release -L '^transformers$' || failed=1
fi
if ((mutation)); then
  build release
  run_ctest release -L '^mutation$' || failed=1
fi
exit "$failed"
