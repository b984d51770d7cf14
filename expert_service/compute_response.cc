#include "expert_service/compute_response.h"

#include <algorithm>
#include <string>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/message_bytes.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/message_codec.h"
#include "common/wire/status.h"
#include "common/wire/tensor_encode.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::node {
namespace {

// More than every field of a ComputeResponse except the rows takes.
constexpr size_t kHeaderBytes = 128;

TensorFrame ShareRows(const PartialRows& answer) {
  TensorFrame tensor{Dtype::kF32, answer.rows, answer.d_model, {}};
  tensor.data.Append(
      Slice(answer.values, answer.rows * answer.d_model * sizeof(float), answer.owner));
  return tensor;
}

TensorFrame ConvertRows(const PartialRows& answer, std::vector<size_t>* beyond) {
  RowEncoder encoder(Dtype::kF32, answer.rows, answer.d_model, answer.dtype, nullptr);
  for (size_t row = 0; row < answer.rows; ++row) {
    if (!encoder.Encode(row, answer.values + row * answer.d_model)) {
      beyond->push_back(row);
    }
  }
  TensorFrame converted = encoder.Finish();
  CountCopiedTensorBytes(converted.data.size());
  return converted;
}

size_t RowsPerFrame(Dtype dtype, size_t d_model, size_t max_frame_bytes) {
  const size_t room = max_frame_bytes - std::min(max_frame_bytes, kHeaderBytes);
  return std::max<size_t>(1, room / WireRowBytes(dtype, d_model));
}

}  // namespace

Frame EncodeError(uint64_t batch_id, const absl::Status& status) {
  EXPERTMESH_CHECK(!status.ok());
  internal::v1::ComputeResponse response;
  response.set_batch_id(batch_id);
  *response.mutable_status() = ToWire(status);
  return EncodeTensorMessage(response, nullptr);
}

std::vector<Frame> EncodePartials(const PartialRows& answer, size_t max_frame_bytes,
                                  std::vector<size_t>* widened) {
  const size_t first_widened = widened->size();
  const bool converts = answer.dtype != Dtype::kF32;
  const TensorFrame floats = ShareRows(answer);
  const TensorFrame rows = converts ? ConvertRows(answer, widened) : floats;
  auto next_widened = widened->begin() + static_cast<ptrdiff_t>(first_widened);
  std::vector<Frame> frames;
  for (size_t row = 0; row < answer.rows;) {
    const bool wide = next_widened != widened->end() && *next_widened == row;
    const TensorFrame& source = wide ? floats : rows;
    size_t end =
        std::min(answer.rows, row + RowsPerFrame(source.dtype, answer.d_model, max_frame_bytes));
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
    internal::v1::ComputeResponse response;
    response.set_batch_id(answer.batch_id);
    response.mutable_status();
    response.set_first_row(static_cast<uint32_t>(row));
    if (end == answer.rows) {
      response.set_receive_us(ToMicros(answer.times.receiving()));
      response.set_queue_us(ToMicros(answer.times.queueing()));
      response.set_compute_us(ToMicros(answer.times.computing()));
      response.set_merge_id(answer.merge.id);
      response.set_merged_batches(answer.merge.batches);
    }
    const TensorFrame tensor = RowsOf(source, row, end - row);
    if (answer.checksums) {
      response.set_checksum(ChecksumOf(response, tensor));
    }
    frames.push_back(EncodeTensorMessage(response, &tensor));
    row = end;
  }
  return frames;
}

}  // namespace expertmesh::node
