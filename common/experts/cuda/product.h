// The two products of a batch with everything between them. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/cuda/stream.h"
#include "common/experts/cuda/batch_tables.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/expert_layout.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

// A batch on the device: its tables, and memory for what is computed. Pointers are to device
// memory.
struct DeviceBatch {
  const DeviceExpert* experts = nullptr;
  const TokenTile* narrow = nullptr;
  const TokenTile* wide = nullptr;
  const uint32_t* row_of = nullptr;
  const float* scale = nullptr;  // Null unless weights are for the input.
  const void* hidden = nullptr;  // [hidden_rows, stride], zero from d_model on.
  void* gathered = nullptr;      // [sorted_rows, stride]
  void* activations = nullptr;   // [sorted_rows, most_down_inner]
  void* outputs = nullptr;       // [sorted_rows, stride]
  uint32_t d_model = 0;
  uint32_t stride = 0;  // d_model, padded.
};

// Keeps what it needs between batches: it belongs to one stream. Not thread-safe.
class Product {
 public:
  virtual ~Product() = default;
  // How experts must lie for it.
  virtual Arrangement arrangement() const = 0;
  // As BatchTables::Build takes it.
  virtual uint32_t wide_rows() const = 0;
  // Whether it writes DeviceBatch::gathered, even without `scale`.
  virtual bool gathers() const = 0;
  // Type of DeviceBatch::outputs: kF32 or that of its operands.
  virtual Dtype output_type() const = 0;
  // Makes room for a batch. Nothing of the batch before may be under way.
  virtual absl::Status Prepare(const BatchTables& tables) = 0;
  // Enqueues all that is between the hidden states and the outputs.
  virtual absl::Status Enqueue(const BatchTables& tables, const DeviceBatch& batch) = 0;
};

// `stream` must outlive the product. `dtype`: kBF16 or kF32.
std::unique_ptr<Product> MakeFixedOrderProduct(Dtype dtype, const cuda::Stream& stream);
absl::StatusOr<std::unique_ptr<Product>> MakeCublasProduct(Dtype dtype, int device,
                                                           const cuda::Stream& stream);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_PRODUCT_H_
