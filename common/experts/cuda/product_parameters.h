// What the kernels of one order take. For sources of kernels, private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_PARAMETERS_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_PARAMETERS_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/kernels.h"

namespace expertmesh::experts {

// As ProductArguments, on the device. `T`: an element of the input.
template <typename T>
struct ProductParameters {
  explicit ProductParameters(const ProductArguments& arguments)
      : experts(arguments.experts),
        tiles(arguments.tiles),
        input(static_cast<const T*>(arguments.input)),
        row_of(arguments.row_of),
        output(arguments.output),
        input_stride(arguments.input_stride),
        output_stride(arguments.output_stride) {}

  const DeviceExpert* experts;
  const TokenTile* tiles;
  const T* input;
  const uint32_t* row_of;
  void* output;
  uint32_t input_stride;
  uint32_t output_stride;

  // The input of sorted row `position`.
  __device__ __forceinline__ const T* InputRow(uint32_t position) const {
    const uint32_t row = row_of == nullptr ? position : row_of[position];
    return input + static_cast<size_t>(row) * input_stride;
  }

  template <typename F>
  void ForEachPointer(F f) const {
    f(experts);
    f(tiles);
    f(input);
    f(row_of);
    f(output);
  }
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_PARAMETERS_H_
