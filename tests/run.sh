#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests; ends with ctest's summary.
#
#   tests/run.sh [--quick] [--asan] [--tsan] [--with-transformers] [--mutation] [--observability]
#   tests/run.sh --gpu
#
#   --quick               unit tests only
#   --asan, --tsan        with AddressSanitizer and UndefinedBehaviorSanitizer, or ThreadSanitizer,
#                         instead of the release build (both: one after the other)
#   --with-transformers   also the tests against real models of the transformers library, which always
#                         use the release build
#   --mutation            also the check that the unit tests notice deliberately wrong variants of the code
#                         (tests/mutation/rooms lists them), in the release build
#   --observability       also deploy/observability with the real collector, Jaeger, Zipkin and Prometheus, which
#                         are built the first time (15 minutes), beside the release build
#   --gpu                 nothing but what needs a GPU of NVIDIA: the conformance of the CUDA backend on it, under
#                         compute-sanitizer too where there is one, and its speed against the device's peak as
#                         build/release/gpu.html
#
# What depends on the CPU's instruction set runs once for each that this CPU has: everything with the
# widest, then, in the release build, the unit tests and those labelled isa with each narrower one
# (--quick: the widest alone). EXPERTMESH_MAX_CPU_ISA (common/base/cpu_features.h) sets the widest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

quick=0 with_transformers=0 mutation=0 observability=0 gpu=0 presets=()
for flag in "$@"; do
  case $flag in
    --quick) quick=1 ;;
    --asan) presets+=(asan) ;;
    --tsan) presets+=(tsan) ;;
    --with-transformers) with_transformers=1 ;;
    --mutation) mutation=1 ;;
    --observability) observability=1 ;;
    --gpu) gpu=1 ;;
    -h | --help)
      sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
      exit 0
      ;;
    *)
      echo "tests/run.sh: unknown flag $flag" >&2
      sed -n '4,5s/^# *//p' "$0" >&2
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

# Kernels are compiled by the release build of a whole run; by that of a quick one where there is a toolkit already.
cuda_of() { # preset
  if [[ $1 == release ]] && ((!quick)); then
    echo on
  else
    echo auto
  fi
}

# Says which CPU this is, and sets `narrower`: the instruction sets to run beside the widest.
narrower=()
describe_cpu() { # preset
  local name state model widest='' absent=()
  cmake --build "build/$1" --target cpu_isa -- --quiet
  {
    read -r model
    while read -r name state; do
      case $state in
        used) if [[ -z $widest ]]; then widest=$name; else narrower+=("$name"); fi ;;
        *) absent+=("$name ($state)") ;;
      esac
    done
  } < <("build/$1/tests/support/cpu_isa")
  echo "== CPU: $model"
  echo "== Instruction sets: $widest (everything), then ${narrower[*]:-no narrower one} (unit and isa tests)"
  echo "== Not run: ${absent[*]:-none}"
}

configure() { # preset
  cmake --preset "$1" -DEXPERTMESH_TESTS=ON \
    -DEXPERTMESH_PYTHON="$root/build/venv/bin/python" -DEXPERTMESH_CUDA="$(cuda_of "$1")" >"build/configure-$1.log" 2>&1 ||
    {
      tail -n 30 "build/configure-$1.log" >&2
      return 1
    }
}

build() { # preset
  echo "== Building preset $1"
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
  configure "$1"
  if [[ $1 == release ]]; then
    describe_cpu "$1"
  fi
  build "$1"
  local labels=(-LE '^(transformers|mutation|observability)$')
  if ((quick)); then
    labels=(-L '^unit$')
  elif ((with_transformers)) && [[ $1 == release ]]; then
    labels=(-LE '^(mutation|observability)$')
  fi
  run_ctest "$1" "${labels[@]}" || failed=1
  local isa
  for isa in "${narrower[@]}"; do
    if ((!quick)) && [[ $1 == release ]]; then
      echo "== Instruction set $isa"
      EXPERTMESH_MAX_CPU_ISA=$isa run_ctest "$1" -L '^(unit|isa)$' || failed=1
    fi
  done
}

if ((gpu)); then
  if (($# != 1)); then
    echo "tests/run.sh --gpu: goes with no other flag" >&2
    exit 2
  fi
  # WSL has another one.
  if [[ ! -e /dev/nvidiactl && ! -e /dev/dxg ]]; then
    echo "tests/run.sh --gpu: this machine has no GPU of NVIDIA (no /dev/nvidiactl)" >&2
    exit 1
  fi
  deploy/packages.sh install --tests --cuda
  deploy/venv.sh
  configure release
  cmake --build build/release --target expertmesh_cuda_module gpu_conformance_test gpu-layers
  exec tests/cuda/gpu/run.sh build/release
fi

package_flags=(--tests)
if ((!quick)); then
  package_flags+=(--stubs)
fi
if ((!quick)) && { [[ " ${presets[*]} " == *' release '* ]] || ((with_transformers + mutation + observability)); }; then
  package_flags+=(--cuda)
fi
if ((observability)); then
  package_flags+=(--observability)
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
  configure release
  build release
  run_ctest release -L '^transformers$' || failed=1
fi
if ((mutation)); then
  configure release
  build release
  run_ctest release -L '^mutation$' || failed=1
fi
if ((observability)); then
  deploy/observability/build.sh
  configure release
  build release
  run_ctest release -L '^observability$' || failed=1
fi
exit "$failed"
