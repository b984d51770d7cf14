#include <memory>

#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"
#include "common/experts/cuda/kernels.h"
#include "common/experts/cuda/product.h"

namespace expertmesh::experts {
namespace {

class FixedOrderProduct final : public Product {
 public:
  FixedOrderProduct(Dtype dtype, const cuda::Stream& stream)
      : is_bf16_(dtype == Dtype::kBF16), stream_(stream) {}

  Arrangement arrangement() const override { return Arrangement::kForKernels; }
  uint32_t wide_rows() const override { return is_bf16_ ? kWidestRowsBf16 : kWideRowsF32; }
  bool gathers() const override { return false; }
  Dtype output_type() const override { return Dtype::kF32; }
  absl::Status Prepare(const BatchTables& /*tables*/) override { return absl::OkStatus(); }
  absl::Status Enqueue(const BatchTables& tables, const DeviceBatch& batch) override;

 private:
  absl::Status Multiply(Stage stage, const BatchTables& tables, const DeviceBatch& batch,
                        ProductArguments arguments);

  const bool is_bf16_;
  const cuda::Stream& stream_;
};

absl::Status FixedOrderProduct::Enqueue(const BatchTables& tables, const DeviceBatch& batch) {
  ProductArguments up;
  up.most_rows = tables.most_up_rows;
  up.input = batch.hidden;
  up.row_of = batch.row_of;
  up.input_stride = batch.stride;
  up.output = batch.activations;
  up.output_stride = tables.most_down_inner;
  if (batch.scale != nullptr) {
    const GatherArguments gather = {batch.hidden,   batch.row_of,         batch.scale,
                                    batch.gathered, tables.sorted_rows(), batch.d_model,
                                    batch.stride};
    RETURN_IF_ERROR(cuda::ToStatus(
        is_bf16_ ? LaunchGatherBf16(gather, stream_.get()) : LaunchGatherF32(gather, stream_.get()),
        "launch of the scaling of rows"));
    up.input = batch.gathered;
    up.row_of = nullptr;
  }
  RETURN_IF_ERROR(Multiply(Stage::kUp, tables, batch, up));
  ProductArguments down;
  down.most_rows = batch.stride;
  down.input = batch.activations;
  down.input_stride = tables.most_down_inner;
  down.output = batch.outputs;
  down.output_stride = batch.stride;
  return Multiply(Stage::kDown, tables, batch, down);
}

absl::Status FixedOrderProduct::Multiply(Stage stage, const BatchTables& tables,
                                         const DeviceBatch& batch, ProductArguments arguments) {
  arguments.experts = batch.experts;
  if (!tables.narrow.empty()) {
    arguments.tiles = batch.narrow;
    arguments.tile_count = static_cast<uint32_t>(tables.narrow.size());
    arguments.most_tokens = kNarrowRows;
    RETURN_IF_ERROR(cuda::ToStatus(is_bf16_ ? LaunchNarrowBf16(stage, arguments, stream_.get())
                                            : LaunchNarrowF32(stage, arguments, stream_.get()),
                                   "launch of the product of few rows"));
  }
  if (!tables.wide.empty()) {
    arguments.tiles = batch.wide;
    arguments.tile_count = static_cast<uint32_t>(tables.wide.size());
    arguments.most_tokens = tables.most_wide_rows;
    RETURN_IF_ERROR(cuda::ToStatus(is_bf16_ ? LaunchWideBf16(stage, arguments, stream_.get())
                                            : LaunchWideF32(stage, arguments, stream_.get()),
                                   "launch of the product of many rows"));
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Product> MakeFixedOrderProduct(Dtype dtype, const cuda::Stream& stream) {
  return std::make_unique<FixedOrderProduct>(dtype, stream);
}

}  // namespace expertmesh::experts
