#include "common/experts/cuda/batch_slot.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"
#include "common/experts/cuda/cuda_expert.h"
#include "common/experts/cuda/kernels.h"
#include "common/experts/cuda/settle.h"

namespace expertmesh::experts {
namespace {

constexpr size_t kAlignment = 256;
// A grid has no more blocks in y, and a tile takes at least one assignment.
constexpr size_t kMostAssignments = 65535;

template <typename T>
size_t Place(const std::vector<T>& values, size_t* end) {
  const size_t at = *end;
  *end = (at + values.size() * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  return at;
}

template <typename T>
void Fill(const std::vector<T>& values, uint8_t* target) {
  if (!values.empty()) {
    std::memcpy(target, values.data(), values.size() * sizeof(T));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchSlot>> BatchSlot::Create(const CudaBackendOptions& options) {
  std::unique_ptr<BatchSlot> slot(new BatchSlot(options));
  ASSIGN_OR_RETURN(slot->stream_, cuda::Stream::Create(options.device));
  if (options.product == CudaProduct::kCublas) {
    ASSIGN_OR_RETURN(slot->product_,
                     MakeCublasProduct(options.compute_dtype, options.device, slot->stream_));
  } else {
    slot->product_ = MakeFixedOrderProduct(options.compute_dtype, slot->stream_);
  }
  return slot;
}

absl::Status BatchSlot::Start(const GroupedBatch& batch, size_t begin) {
  batch_ = batch;
  begin_ = begin;
  end_ = EndOfPart(batch, begin);
  stride_ = PackedShape::Padded(batch.d_model);
  if (batch.row_begin[end_] - batch.row_begin[begin] > kMostAssignments) {
    return absl::InvalidArgumentError(
        absl::StrCat("row ", begin, " of a batch has more than ", kMostAssignments, " experts"));
  }
  tables_.Build(batch, begin, end_, product_->wide_rows());
  absl::Status status = Enqueue();
  return status.ok() ? status : Settle(stream_, std::move(status));
}

// As many rows as fit into the scratch memory allowed, and at least one.
size_t BatchSlot::EndOfPart(const GroupedBatch& batch, size_t begin) const {
  const size_t element = BytesOf(dtype_);
  const size_t hidden = PackedShape::Padded(batch.d_model);
  size_t inner = 0;
  for (const PackedExpert* const expert : batch.experts) {
    inner = std::max(inner, static_cast<const CudaExpert*>(expert)->shape().down_inner());
  }
  // Gathered row, products of gate and up, activation, output.
  const size_t each = hidden * (element + sizeof(float)) + inner * (element + 2 * sizeof(float));
  const size_t most = std::clamp<size_t>(max_scratch_bytes_ / each, 1, kMostAssignments);
  size_t end = begin + 1;
  while (end < batch.rows && end - begin < most &&
         batch.row_begin[end + 1] - batch.row_begin[begin] <= most) {
    ++end;
  }
  return end;
}

absl::Status BatchSlot::Enqueue() {
  RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(device_), "cudaSetDevice"));
  const Places places = PlaceTables();
  RETURN_IF_ERROR(host_tables_.Grow(device_, places.bytes));
  RETURN_IF_ERROR(device_tables_.Grow(device_, places.bytes));
  RETURN_IF_ERROR(MakeRoom());
  FillTables(places);
  RETURN_IF_ERROR(
      cuda::ToStatus(cudaMemcpyAsync(device_tables_.data(), host_tables_.data(), places.bytes,
                                     cudaMemcpyHostToDevice, stream_.get()),
                     "cudaMemcpyAsync of a batch"));
  RETURN_IF_ERROR(EnqueueKernels(places));
  const size_t bytes = size_t{tables_.rows()} * batch_.d_model * sizeof(float);
  return cuda::ToStatus(cudaMemcpyAsync(host_sums_.data(), sums_.data(), bytes,
                                        cudaMemcpyDeviceToHost, stream_.get()),
                        "cudaMemcpyAsync of results");
}

absl::Status BatchSlot::MakeRoom() {
  const size_t sorted = tables_.sorted_rows();
  const size_t element = BytesOf(dtype_);
  const size_t sums = size_t{tables_.rows()} * batch_.d_model * sizeof(float);
  if (product_->gathers() || !tables_.scale.empty()) {
    RETURN_IF_ERROR(gathered_.Grow(device_, sorted * stride_ * element));
  }
  RETURN_IF_ERROR(activations_.Grow(device_, sorted * tables_.most_down_inner * element));
  RETURN_IF_ERROR(outputs_.Grow(device_, sorted * stride_ * BytesOf(product_->output_type())));
  RETURN_IF_ERROR(sums_.Grow(device_, sums));
  RETURN_IF_ERROR(host_sums_.Grow(device_, sums));
  return product_->Prepare(tables_);
}

BatchSlot::Places BatchSlot::PlaceTables() const {
  Places places;
  places.experts = Place(tables_.experts, &places.bytes);
  places.narrow = Place(tables_.narrow, &places.bytes);
  places.wide = Place(tables_.wide, &places.bytes);
  places.row_of = Place(tables_.row_of, &places.bytes);
  places.scale = Place(tables_.scale, &places.bytes);
  places.row_begin = Place(tables_.row_begin, &places.bytes);
  places.terms = Place(tables_.terms, &places.bytes);
  places.hidden = places.bytes;
  places.bytes += tables_.hidden_rows.size() * stride_ * BytesOf(dtype_);
  return places;
}

void BatchSlot::FillTables(const Places& places) {
  uint8_t* const to = host_tables_.data();
  Fill(tables_.experts, to + places.experts);
  Fill(tables_.narrow, to + places.narrow);
  Fill(tables_.wide, to + places.wide);
  Fill(tables_.row_of, to + places.row_of);
  Fill(tables_.scale, to + places.scale);
  Fill(tables_.row_begin, to + places.row_begin);
  Fill(tables_.terms, to + places.terms);
  const size_t filled = batch_.d_model * BytesOf(dtype_);
  const size_t row_bytes = stride_ * BytesOf(dtype_);
  uint8_t* row = to + places.hidden;
  for (const uint32_t from : tables_.hidden_rows) {
    std::memcpy(row, static_cast<const uint8_t*>(batch_.hidden_states) + from * filled, filled);
    std::memset(row + filled, 0, row_bytes - filled);
    row += row_bytes;
  }
}

absl::Status BatchSlot::EnqueueKernels(const Places& places) {
  DeviceBatch batch;
  batch.experts = device_tables_.as<DeviceExpert>(places.experts);
  batch.narrow = device_tables_.as<TokenTile>(places.narrow);
  batch.wide = device_tables_.as<TokenTile>(places.wide);
  batch.row_of = device_tables_.as<uint32_t>(places.row_of);
  batch.scale = tables_.scale.empty() ? nullptr : device_tables_.as<float>(places.scale);
  batch.hidden = device_tables_.as<uint8_t>(places.hidden);
  batch.gathered = gathered_.data();
  batch.activations = activations_.data();
  batch.outputs = outputs_.data();
  batch.d_model = static_cast<uint32_t>(batch_.d_model);
  batch.stride = static_cast<uint32_t>(stride_);
  if (tables_.sorted_rows() > 0) {
    RETURN_IF_ERROR(product_->Enqueue(tables_, batch));
  }
  CombineArguments combine;
  combine.experts = batch.experts;
  combine.row_begin = device_tables_.as<uint32_t>(places.row_begin);
  combine.terms = device_tables_.as<Term>(places.terms);
  combine.outputs = batch.outputs;
  combine.output_stride = batch.stride;
  combine.sums = sums_.as<float>();
  combine.rows = tables_.rows();
  combine.columns = batch.d_model;
  return cuda::ToStatus(product_->output_type() == Dtype::kBF16
                            ? LaunchCombineBf16(combine, stream_.get())
                            : LaunchCombineF32(combine, stream_.get()),
                        "launch of the sums");
}

absl::Status BatchSlot::Finish() {
  absl::Status status = cuda::ToStatus(cudaSetDevice(device_), "cudaSetDevice");
  if (status.ok()) {
    status = stream_.Synchronize();
  }
  if (!status.ok()) {
    return Settle(stream_, std::move(status));
  }
  std::memcpy(batch_.partials + begin_ * batch_.d_model, host_sums_.data(),
              (end_ - begin_) * batch_.d_model * sizeof(float));
  return absl::OkStatus();
}

}  // namespace expertmesh::experts
