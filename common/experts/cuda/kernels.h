// The kernels, as functions of the host. Each enqueues one launch on `stream` and returns what the
// launch returned; all pointers are to device memory. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_KERNELS_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/experts/cuda/device_types.h"

namespace expertmesh::experts {

enum class Stage { kUp, kDown };

// One product of every expert with its rows, by the kernels that sum in one order.
struct ProductArguments {
  const DeviceExpert* experts = nullptr;
  const TokenTile* tiles = nullptr;
  uint32_t tile_count = 0;
  // Rows of the largest tile.
  uint32_t most_tokens = 0;
  // Rows of the widest matrix among the experts of `tiles`.
  uint32_t most_rows = 0;
  // kUp: hidden states, of which sorted row p reads row_of[p], or p when row_of is null.
  // kDown: activations of sorted rows. Of the compute type, `input_stride` elements in a row, zero
  // beyond what is filled up to the matrix's inner dimension.
  const void* input = nullptr;
  const uint32_t* row_of = nullptr;
  uint32_t input_stride = 0;
  // kUp: activations, of the compute type. kDown: float32, without the bias.
  void* output = nullptr;
  uint32_t output_stride = 0;
};

// What has to be said to the runtime once for each device, before the first launch.
cudaError_t PrepareKernels();

// Tiles of at most kNarrowRows rows.
cudaError_t LaunchNarrowBf16(Stage stage, const ProductArguments& arguments, cudaStream_t stream);
cudaError_t LaunchNarrowF32(Stage stage, const ProductArguments& arguments, cudaStream_t stream);
// Tiles of at most kWidestRowsBf16 or kWideRowsF32 rows.
cudaError_t LaunchWideBf16(Stage stage, const ProductArguments& arguments, cudaStream_t stream);
cudaError_t LaunchWideF32(Stage stage, const ProductArguments& arguments, cudaStream_t stream);

// output[p, c] = input[row_of[p], c] for all c < stride; times scale[p], rounded to the type, for
// c < columns when `scale` is given.
struct GatherArguments {
  const void* input = nullptr;
  const uint32_t* row_of = nullptr;
  const float* scale = nullptr;
  void* output = nullptr;
  uint32_t rows = 0;
  uint32_t columns = 0;
  uint32_t stride = 0;
};
cudaError_t LaunchGatherBf16(const GatherArguments& arguments, cudaStream_t stream);
cudaError_t LaunchGatherF32(const GatherArguments& arguments, cudaStream_t stream);

// activations[p] from products[p] of the first product, for products that do not do it themselves.
// The rows of a tile's products start at products + product_begin[tile], [expert's up.rows] each.
struct ActivateArguments {
  const DeviceExpert* experts = nullptr;
  const TokenTile* tiles = nullptr;
  uint32_t tile_count = 0;
  uint32_t most_rows = 0;  // Packed rows of the widest expert's `up`.
  const uint64_t* product_begin = nullptr;
  const void* products = nullptr;  // In the compute type.
  void* activations = nullptr;
  uint32_t stride = 0;
};
cudaError_t LaunchActivateBf16(const ActivateArguments& arguments, cudaStream_t stream);
cudaError_t LaunchActivateF32(const ActivateArguments& arguments, cudaStream_t stream);

// sums[r, c] = sum over terms t of row r, in order, of weight * (outputs[position, c] + bias[c]).
struct CombineArguments {
  const DeviceExpert* experts = nullptr;
  const uint32_t* row_begin = nullptr;  // [rows + 1]
  const Term* terms = nullptr;
  const void* outputs = nullptr;
  uint32_t output_stride = 0;
  float* sums = nullptr;  // [rows, columns]
  uint32_t rows = 0;
  uint32_t columns = 0;
};
// From outputs of bf16, or float32.
cudaError_t LaunchCombineBf16(const CombineArguments& arguments, cudaStream_t stream);
cudaError_t LaunchCombineF32(const CombineArguments& arguments, cudaStream_t stream);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_KERNELS_H_
