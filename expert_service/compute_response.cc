#include "expert_service/compute_response.h"

#include <algorithm>
#include <string>

#include "common/base/check.h"
#include "common/base/message_bytes.h"
#include "common/wire/message_codec.h"
#include "common/wire/tensor_encode.h"
#include "expertmesh/v1/expert.pb.h"

namespace expertmesh {
namespace {

// More than every field of a ComputeResponse except the rows takes.
constexpr size_t kHeaderBytes = 128;

TensorFrame AllRows(const BatchResult& result) {
  if (result.dtype != DType::kF32) {
    TensorFrame converted =
        EncodeRows(DType::kF32, result.partials, result.rows, result.d_model, result.dtype);
    CountCopiedTensorBytes(converted.data.size());
    return converted;
  }
  TensorFrame tensor{result.dtype, result.rows, result.d_model, {}};
  tensor.data.Append(
      Slice(result.partials, result.rows * result.d_model * sizeof(float), result.owner));
  return tensor;
}

}  // namespace

Frame EncodeError(uint64_t batch_id, const absl::Status& status) {
  EXPERTMESH_CHECK(!status.ok());
  v1::ComputeResponse response;
  response.set_batch_id(batch_id);
  response.mutable_status()->set_code(static_cast<int32_t>(status.code()));
  response.mutable_status()->set_message(std::string(status.message()));
  return EncodeTensorMessage(response, nullptr);
}

std::vector<Frame> EncodeResult(const BatchResult& result, size_t max_frame_bytes) {
  const TensorFrame rows = AllRows(result);
  const size_t row_bytes = WireRowBytes(result.dtype, result.d_model);
  const size_t room = max_frame_bytes - std::min(max_frame_bytes, kHeaderBytes);
  const size_t rows_per_frame = std::max<size_t>(1, room / row_bytes);
  std::vector<Frame> frames;
  frames.reserve((result.rows + rows_per_frame - 1) / rows_per_frame);
  for (size_t row = 0; row < result.rows; row += rows_per_frame) {
    const size_t count = std::min(rows_per_frame, result.rows - row);
    v1::ComputeResponse response;
    response.set_batch_id(result.batch_id);
    response.mutable_status();
    response.set_first_row(static_cast<uint32_t>(row));
    if (row + count == result.rows) {
      response.set_queue_us(result.queue_us);
      response.set_compute_us(result.compute_us);
    }
    const TensorFrame tensor = RowsOf(rows, row, count);
    frames.push_back(EncodeTensorMessage(response, &tensor));
  }
  return frames;
}

}  // namespace expertmesh
