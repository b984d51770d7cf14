#include "expert_service/compute_response.h"

#include <algorithm>
#include <string>

#include "common/base/check.h"
#include "common/base/message_bytes.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/message_codec.h"
#include "common/wire/status.h"
#include "common/wire/tensor_encode.h"
#include "expertmesh/v1/expert.pb.h"

namespace expertmesh::node {
namespace {

// More than every field of a ComputeResponse except the rows takes.
constexpr size_t kHeaderBytes = 128;

TensorFrame Shared(const BatchResult& result) {
  TensorFrame tensor{DType::kF32, result.rows, result.d_model, {}};
  tensor.data.Append(
      Slice(result.partials, result.rows * result.d_model * sizeof(float), result.owner));
  return tensor;
}

TensorFrame Converted(const BatchResult& result, std::vector<size_t>* beyond) {
  RowEncoder encoder(DType::kF32, result.rows, result.d_model, result.dtype, nullptr);
  for (size_t row = 0; row < result.rows; ++row) {
    if (!encoder.Encode(row, result.partials + row * result.d_model)) {
      beyond->push_back(row);
    }
  }
  TensorFrame converted = encoder.Finish();
  CountCopiedTensorBytes(converted.data.size());
  return converted;
}

size_t RowsPerFrame(DType dtype, size_t d_model, size_t max_frame_bytes) {
  const size_t room = max_frame_bytes - std::min(max_frame_bytes, kHeaderBytes);
  return std::max<size_t>(1, room / WireRowBytes(dtype, d_model));
}

}  // namespace

Frame EncodeError(uint64_t batch_id, const absl::Status& status) {
  EXPERTMESH_CHECK(!status.ok());
  v1::ComputeResponse response;
  response.set_batch_id(batch_id);
  *response.mutable_status() = ToWire(status);
  return EncodeTensorMessage(response, nullptr);
}

std::vector<Frame> EncodeResult(const BatchResult& result, size_t max_frame_bytes,
                                std::vector<size_t>* widened) {
  const size_t first_widened = widened->size();
  const bool converts = result.dtype != DType::kF32;
  const TensorFrame floats = Shared(result);
  const TensorFrame rows = converts ? Converted(result, widened) : floats;
  auto next_widened = widened->begin() + static_cast<ptrdiff_t>(first_widened);
  std::vector<Frame> frames;
  for (size_t row = 0; row < result.rows;) {
    const bool wide = next_widened != widened->end() && *next_widened == row;
    const TensorFrame& source = wide ? floats : rows;
    size_t end =
        std::min(result.rows, row + RowsPerFrame(source.dtype, result.d_model, max_frame_bytes));
    if (wide) {
      size_t after = row;
      while (after < end && next_widened != widened->end() && *next_widened == after) {
        ++next_widened;
        ++after;
      }
      end = after;
    } else if (next_widened != widened->end()) {
      end = std::min(end, *next_widened);
    }
    v1::ComputeResponse response;
    response.set_batch_id(result.batch_id);
    response.mutable_status();
    response.set_first_row(static_cast<uint32_t>(row));
    if (end == result.rows) {
      response.set_queue_us(result.queue_us);
      response.set_compute_us(result.compute_us);
    }
    const TensorFrame tensor = RowsOf(source, row, end - row);
    if (result.checksums) {
      response.set_checksum(ChecksumOf(response, tensor));
    }
    frames.push_back(EncodeTensorMessage(response, &tensor));
    row = end;
  }
  return frames;
}

}  // namespace expertmesh::node
