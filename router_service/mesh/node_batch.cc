#include "router_service/mesh/node_batch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/message_bytes.h"
#include "common/wire/tensor_copy.h"

namespace expertmesh::mesh {

absl::Status NodeBatch::CheckContinues(
    const TensorMessage<internal::v1::ComputeResponse>& answer) const {
  const uint64_t count = answer.tensor.rows;
  const bool fits = answer.tensor.dtype == partials_dtype || answer.tensor.dtype == Dtype::kF32;
  if (!answer.has_tensor || !fits || answer.tensor.cols != d_model || count == 0 ||
      answer.message.first_row() != received || count > answer_rows - received) {
    return absl::InternalError(absl::StrCat(
        "partials are rows ", answer.message.first_row(), " + ", count, " of ", answer.tensor.cols,
        ", ", NameOf(answer.tensor.dtype), "; expected ", NameOf(partials_dtype), " rows from ",
        received, " of ", answer_rows, ", d_model ", d_model));
  }
  return absl::OkStatus();
}

void NodeBatch::Receive(const TensorFrame& next) {
  if (next.dtype == Dtype::kF32 && kept_dtype != Dtype::kF32) {
    const size_t received_elements = size_t{received} * d_model;
    auto wider = std::make_shared<AlignedBuffer>(size_t{answer_rows} * d_model * sizeof(float));
    ConvertElements(kept_dtype, partials->data(), Dtype::kF32, wider->data(), received_elements);
    partials = std::move(wider);
    kept_dtype = Dtype::kF32;
  }
  const size_t row_bytes = d_model * BytesOf(kept_dtype);
  uint8_t* const target = partials->data() + received * row_bytes;
  const bool finite = DecodeRows(next, kept_dtype, target);
  CountCopiedTensorBytes(next.data.size());
  for (uint32_t row = 0; !finite && row < next.rows; ++row) {
    if (HasNonFinite(kept_dtype, target + row * row_bytes, d_model)) {
      nonfinite_rows.push_back(received + row);
    }
  }
  received += static_cast<uint32_t>(next.rows);
}

void NodeBatch::Clear() {
  rows = 0;
  answer_rows = 0;
  assignments = 0;
  trace = {};
  partials.reset();
  received = 0;
  nonfinite_rows.clear();
  report = {};
  overdue = false;
}

}  // namespace expertmesh::mesh
