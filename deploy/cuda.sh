#!/usr/bin/env bash
# The CUDA toolkit that GPU builds of expert services use.
#
#   deploy/cuda.sh install   brings it into build/cuda from Python wheels of fixed versions (650 MB to fetch, 1.2 GB on
#                            disk), unless there is one on this machine; prints nothing when there is nothing to do
#   deploy/cuda.sh find      prints its folder: CUDA_HOME, that of the nvcc on PATH, /usr/local/cuda, build/cuda; the
#                            first that has what the build needs. Exit status 1, and on stderr what was wrong with
#                            each: there is none
#
# EXPERTMESH_CUDA_TOOLKIT is another folder than build/cuda, say one that several trees share. No GPU and no driver
# is needed, nor brought.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
own=${EXPERTMESH_CUDA_TOOLKIT:-$root/build/cuda}
# The compiler with its parts, the runtime, cuBLAS, and the headers that both of these include.
wheels=(nvidia-cuda-nvcc==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-crt==13.5.37 nvidia-cuda-runtime==13.5.37
  nvidia-cublas==13.10.0.20 nvidia-cuda-cccl==13.3.5.0.6)
# The first that compiles for sm_100.
least=12.8

usage() {
  sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
}

# Says why the folder is no toolkit for this build; nothing: it is one.
wrong_with() { # folder
  [[ -x $1/bin/nvcc ]] || {
    echo "has no bin/nvcc"
    return
  }
  local version
  version=$("$1/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p') || true
  if [[ $(printf '%s\n' "$least" "${version:-0}" | sort -V | head -n 1) != "$least" ]]; then
    echo "is CUDA ${version:-of no version}, $least or later is needed"
    return
  fi
  local file
  for file in include/cuda_runtime.h include/cublas_v2.h; do
    [[ -f $1/$file ]] || {
      echo "has no $file"
      return
    }
  done
  for file in cudart cublas cublasLt; do
    [[ -e $1/lib64/lib$file.so || -e $1/lib/lib$file.so ]] || {
      echo "has no lib$file.so"
      return
    }
  done
}

candidates() { # those of the system
  if [[ -n ${CUDA_HOME:-} ]]; then
    printf '%s\n' "$CUDA_HOME"
  fi
  local nvcc
  if nvcc=$(command -v nvcc); then
    nvcc=$(readlink -f "$nvcc")
    printf '%s\n' "${nvcc%/bin/nvcc}"
  fi
  printf '%s\n' /usr/local/cuda
}

find_among() { # folders
  local folder wrong
  for folder in "$@"; do
    [[ -d $folder ]] || continue
    wrong=$(wrong_with "$folder")
    if [[ -z $wrong ]]; then
      printf '%s\n' "$folder"
      return
    fi
    echo "$0: $folder $wrong" >&2
  done
  return 1
}

quietly() {
  if ! "$@" >"$own.log" 2>&1; then
    tail -n 20 "$own.log" >&2
    echo "$0: failed: $*" >&2
    exit 1
  fi
}

# Wheels have no lib64, no libX.so beside libX.so.13, and host compilers do not find <nv/target>.
put_right() { # folder
  local library
  ln -s lib "$1/lib64"
  for library in "$1"/lib/lib*.so.*; do
    ln -sf "${library##*/}" "${library%%.so.*}.so"
  done
  ln -s cccl/nv "$1/include/nv"
}

install_wheels() {
  local stamp=$own/expertmesh-wheels new=$own.new
  if [[ -f $stamp && $(<"$stamp") == "${wheels[*]}" ]]; then
    return
  fi
  echo "Installing into ${own#"$root/"} with pip: ${wheels[*]}"
  rm -rf "$new"
  mkdir -p "$new"
  quietly python3 -m venv "$new/venv"
  quietly "$new/venv/bin/python" -m pip install --no-deps --no-compile --target "$new/wheels" "${wheels[@]}"
  local tops=("$new"/wheels/nvidia/cu*)
  put_right "${tops[0]}"
  printf '%s\n' "${wheels[*]}" >"${tops[0]}/expertmesh-wheels"
  # Licences and versions stay with it.
  mkdir "${tops[0]}/wheels"
  mv "$new"/wheels/*.dist-info "${tops[0]}/wheels/"
  local wrong
  wrong=$(wrong_with "${tops[0]}")
  if [[ -n $wrong ]]; then
    echo "$0: what pip brought $wrong" >&2
    exit 1
  fi
  rm -rf "$own"
  mv "${tops[0]}" "$own"
  rm -rf "$new" "$own.log"
}

mapfile -t of_system < <(candidates)
case ${1:-} in
  install)
    if ! find_among "${of_system[@]}" >/dev/null 2>&1; then
      mkdir -p "$(dirname "$own")"
      # One at a time; what another one brings meanwhile is then there.
      exec 8>"$own.lock"
      flock 8
      install_wheels
    fi
    ;;
  find) find_among "${of_system[@]}" "$own" ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
