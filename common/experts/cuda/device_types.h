// What the host hands to kernels: the tables of one batch, in device memory. Private to the room;
// included by kernels, hence plain.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_TYPES_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_TYPES_H_

#include <cstdint>

namespace expertmesh::experts {

// As Activation and ExpertOptions::gated.
enum class DeviceActivation : uint32_t {
  kSilu,
  kRelu,
  kGatedSilu,
  kGatedRelu,
  kGatedClampedSwiglu,
};

// One matrix as it lies packed in device memory: what expert_layout.h says. Rows and inner are
// padded.
struct DeviceMatrix {
  const void* values;
  const float* bias;  // [rows] or null.
  uint32_t rows;
  uint32_t inner;
};

struct DeviceExpert {
  DeviceMatrix up;
  DeviceMatrix down;
  DeviceActivation activation;
  float swiglu_limit;
  float swiglu_alpha;
};

// Rows [begin, begin + count) of those sorted by expert, all of one expert, that one block takes.
struct TokenTile {
  uint32_t expert;
  uint32_t begin;
  uint32_t count;
};

// One assignment, as the sum over a row's assignments takes it.
struct Term {
  uint32_t position;  // Where its row is among those sorted by expert.
  uint32_t expert;
  float weight;
};

// Rows of packed matrices come in groups of so many, and inner dimensions in steps of so many.
inline constexpr uint32_t kPackedStep = 64;
// Rows of one expert up to which each weight goes from memory to registers, for 8 rows at once.
inline constexpr uint32_t kNarrowRows = 8;
// Rows of a block of the other kernels; of bf16 there are two.
inline constexpr uint32_t kWideRowsBf16 = 64;
inline constexpr uint32_t kWidestRowsBf16 = 128;
inline constexpr uint32_t kWideRowsF32 = 32;

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_TYPES_H_
