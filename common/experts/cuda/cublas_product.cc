#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/cuda/cublas.h"
#include "common/cuda/cuda_status.h"
#include "common/cuda/device_memory.h"
#include "common/cuda/pinned_memory.h"
#include "common/experts/cuda/kernels.h"
#include "common/experts/cuda/product.h"

namespace expertmesh::experts {
namespace {

// One product for each expert of a batch, as cuBLAS takes them: column-major, so that
// C^T [rows, tokens] = weights [rows, inner] times tokens^T.
struct Groups {
  std::vector<int> m, n, k, lda, ldb, ldc;
  std::vector<const void*> a, b;
  std::vector<void*> c;

  void Clear() { *this = Groups(); }
  void Add(const DeviceMatrix& matrix, uint32_t tokens, const void* input, uint32_t input_stride,
           void* output, uint32_t output_stride) {
    m.push_back(static_cast<int>(matrix.rows));
    n.push_back(static_cast<int>(tokens));
    k.push_back(static_cast<int>(matrix.inner));
    lda.push_back(static_cast<int>(matrix.inner));
    ldb.push_back(static_cast<int>(input_stride));
    ldc.push_back(static_cast<int>(output_stride));
    a.push_back(matrix.values);
    b.push_back(input);
    c.push_back(output);
  }
};

class CublasProduct final : public Product {
 public:
  CublasProduct(Dtype dtype, int device, const cuda::Stream& stream, cuda::Cublas cublas)
      : is_bf16_(dtype == Dtype::kBF16),
        type_(is_bf16_ ? CUDA_R_16BF : CUDA_R_32F),
        element_(BytesOf(dtype)),
        device_(device),
        stream_(stream),
        cublas_(std::move(cublas)) {}

  Arrangement arrangement() const override { return Arrangement::kInRows; }
  uint32_t wide_rows() const override { return 0; }
  bool gathers() const override { return true; }
  // cuBLAS's grouped products have results of the type of their operands.
  Dtype output_type() const override { return is_bf16_ ? Dtype::kBF16 : Dtype::kF32; }
  absl::Status Prepare(const BatchTables& tables) override;
  absl::Status Enqueue(const BatchTables& tables, const DeviceBatch& batch) override;

 private:
  void AddGroups(const BatchTables& tables, const DeviceBatch& batch);
  absl::Status UploadPointers(const BatchTables& tables);
  absl::Status Multiply(const Groups& groups, size_t pointers);
  absl::Status MultiplyOneByOne(const Groups& groups);
  size_t PointersBytes(const BatchTables& tables) const {
    return 6 * tables.experts.size() * sizeof(void*) + tables.narrow.size() * sizeof(uint64_t);
  }

  const bool is_bf16_;
  const cudaDataType_t type_;
  const size_t element_;
  const int device_;
  const cuda::Stream& stream_;
  cuda::Cublas cublas_;
  bool grouped_ = true;  // Until cuBLAS says that it cannot.

  cuda::DeviceMemory products_;  // Gate and up, expert by expert.
  cuda::PinnedMemory host_pointers_;
  cuda::DeviceMemory device_pointers_;
  Groups up_;
  Groups down_;
  std::vector<uint64_t> product_begin_;  // Per tile: elements before its products.
};

absl::Status CublasProduct::Prepare(const BatchTables& tables) {
  product_begin_.clear();
  uint64_t elements = 0;
  for (const TokenTile& tile : tables.narrow) {
    product_begin_.push_back(elements);
    elements += uint64_t{tile.count} * tables.experts[tile.expert].up.rows;
  }
  RETURN_IF_ERROR(products_.Grow(device_, elements * element_));
  RETURN_IF_ERROR(host_pointers_.Grow(device_, PointersBytes(tables)));
  return device_pointers_.Grow(device_, PointersBytes(tables));
}

// Tiles of an expert follow each other, and so do their products.
void CublasProduct::AddGroups(const BatchTables& tables, const DeviceBatch& batch) {
  up_.Clear();
  down_.Clear();
  const auto at = [this](const void* base, uint64_t elements) {
    return static_cast<uint8_t*>(const_cast<void*>(base)) + elements * element_;
  };
  size_t tile = 0;
  for (uint32_t e = 0; e < tables.experts.size(); ++e) {
    const DeviceExpert& expert = tables.experts[e];
    const uint64_t row = tables.groups()[e].begin;
    const uint32_t count = tables.groups()[e].count;
    up_.Add(expert.up, count, at(batch.gathered, row * batch.stride), batch.stride,
            at(products_.data(), product_begin_[tile]), expert.up.rows);
    down_.Add(expert.down, count, at(batch.activations, row * tables.most_down_inner),
              tables.most_down_inner, at(batch.outputs, row * batch.stride), batch.stride);
    while (tile < tables.narrow.size() && tables.narrow[tile].expert == e) {
      ++tile;
    }
  }
}

absl::Status CublasProduct::UploadPointers(const BatchTables& tables) {
  uint8_t* to = host_pointers_.data();
  const auto append = [&to](const auto& values) {
    std::memcpy(to, values.data(), values.size() * sizeof(values[0]));
    to += values.size() * sizeof(values[0]);
  };
  for (const Groups* const groups : {&up_, &down_}) {
    append(groups->a);
    append(groups->b);
    append(groups->c);
  }
  append(product_begin_);
  return cuda::ToStatus(
      cudaMemcpyAsync(device_pointers_.data(), host_pointers_.data(), PointersBytes(tables),
                      cudaMemcpyHostToDevice, stream_.get()),
      "cudaMemcpyAsync of pointers");
}

absl::Status CublasProduct::Enqueue(const BatchTables& tables, const DeviceBatch& batch) {
  AddGroups(tables, batch);
  RETURN_IF_ERROR(UploadPointers(tables));
  const GatherArguments gather = {batch.hidden,         batch.row_of,  batch.scale, batch.gathered,
                                  tables.sorted_rows(), batch.d_model, batch.stride};
  RETURN_IF_ERROR(cuda::ToStatus(
      is_bf16_ ? LaunchGatherBf16(gather, stream_.get()) : LaunchGatherF32(gather, stream_.get()),
      "launch of the gathering of rows"));
  const size_t experts = tables.experts.size();
  RETURN_IF_ERROR(Multiply(up_, 0));
  ActivateArguments activate;
  activate.experts = batch.experts;
  activate.tiles = batch.narrow;
  activate.tile_count = static_cast<uint32_t>(tables.narrow.size());
  activate.most_rows = tables.most_up_rows;
  activate.product_begin = device_pointers_.as<uint64_t>(6 * experts * sizeof(void*));
  activate.products = products_.data();
  activate.activations = batch.activations;
  activate.stride = tables.most_down_inner;
  RETURN_IF_ERROR(cuda::ToStatus(is_bf16_ ? LaunchActivateBf16(activate, stream_.get())
                                          : LaunchActivateF32(activate, stream_.get()),
                                 "launch of the activation"));
  return Multiply(down_, 3 * experts);
}

// `pointers`: which of the uploaded ones are the first operands.
absl::Status CublasProduct::Multiply(const Groups& groups, size_t pointers) {
  if (!grouped_) {
    return MultiplyOneByOne(groups);
  }
  const size_t count = groups.m.size();
  const std::vector<cublasOperation_t> transposed(count, CUBLAS_OP_T), as_it_is(count, CUBLAS_OP_N);
  const std::vector<float> one(count, 1.0f), zero(count, 0.0f);
  const std::vector<int> size(count, 1);
  const auto at = [&](size_t index) {
    return device_pointers_.as<void*>((pointers + index * count) * sizeof(void*));
  };
  const cublasStatus_t status = cublasGemmGroupedBatchedEx(
      cublas_.get(), transposed.data(), as_it_is.data(), groups.m.data(), groups.n.data(),
      groups.k.data(), one.data(), at(0), type_, groups.lda.data(), at(1), type_, groups.ldb.data(),
      zero.data(), at(2), type_, groups.ldc.data(), static_cast<int>(count), size.data(),
      CUBLAS_COMPUTE_32F);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
    grouped_ = false;
    return MultiplyOneByOne(groups);
  }
  return cuda::ToStatus(status, "cublasGemmGroupedBatchedEx");
}

absl::Status CublasProduct::MultiplyOneByOne(const Groups& groups) {
  const float one = 1.0f;
  const float zero = 0.0f;
  for (size_t i = 0; i < groups.m.size(); ++i) {
    RETURN_IF_ERROR(cuda::ToStatus(
        cublasGemmEx(cublas_.get(), CUBLAS_OP_T, CUBLAS_OP_N, groups.m[i], groups.n[i], groups.k[i],
                     &one, groups.a[i], type_, groups.lda[i], groups.b[i], type_, groups.ldb[i],
                     &zero, groups.c[i], type_, groups.ldc[i], CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Product>> MakeCublasProduct(Dtype dtype, int device,
                                                           const cuda::Stream& stream) {
  ASSIGN_OR_RETURN(cuda::Cublas cublas, cuda::Cublas::Create(device, stream));
  return std::make_unique<CublasProduct>(dtype, device, stream, std::move(cublas));
}

}  // namespace expertmesh::experts
