#!/usr/bin/env bash
# What needs a GPU, after a build with EXPERTMESH_CUDA=on (tests/run.sh --gpu does both):
#
#   tests/cuda/gpu/run.sh BUILD [SHAPE...]    conformance of the real backend on the first GPU, the same under
#       compute-sanitizer where there is one, and layers against the device's peak: BUILD/gpu.html. SHAPEs are those of
#       gpu_layers.cc (default: of known models)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if (($# == 0)) || [[ $1 == -* ]]; then
  sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "$0"
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
  exit 2
fi
build=$(cd "$1" && pwd)
shift
shapes=("$@")
if ((${#shapes[@]} == 0)); then
  mapfile -t shapes < <(python3 "$here/report.py" --shapes)
fi
programs=$build/tests/cuda/gpu
# Programs find it beside the node.
export EXPERTMESH_CUDA_MODULE=${EXPERTMESH_CUDA_MODULE:-$build/expert_service/libexpertmesh_cuda.so}

"$programs/gpu-layers" --describe

echo "== Conformance"
"$programs/gpu_conformance_test" --gtest_brief=1

sanitizer=$(command -v compute-sanitizer || true)
if [[ -z $sanitizer ]]; then
  toolkit=$("$here/../../../deploy/cuda.sh" find 2>/dev/null || true)
  if [[ -x $toolkit/bin/compute-sanitizer ]]; then
    sanitizer=$toolkit/bin/compute-sanitizer
  fi
fi
if [[ -n $sanitizer ]]; then
  for tool in memcheck racecheck synccheck; do
    echo "== compute-sanitizer $tool"
    # Our kernels alone: those of cuBLAS are the work of others.
    "$sanitizer" --tool "$tool" --error-exitcode 9 "$programs/gpu_conformance_test" --gtest_brief=1 \
      --gtest_filter='*/bf16:*/f32'
  done
else
  echo "== No compute-sanitizer here; it comes with the CUDA toolkit"
fi

echo "== Layers"
for product in fixed-order cublas; do
  "$programs/gpu-layers" --device_product "$product" "${shapes[@]}" >"$build/gpu-$product.jsonl"
done
python3 "$here/report.py" "$build/gpu-fixed-order.jsonl" "$build/gpu-cublas.jsonl" >"$build/gpu.html"
echo "$build/gpu.html"
