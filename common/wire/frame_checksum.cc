#include "common/wire/frame_checksum.h"

#include "common/wire/wire_dtype.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>

namespace expertmesh {
namespace {

// Lives on the stack of the caller, so that a checksum allocates nothing.
class Checksum {
 public:
  Checksum() { XXH3_64bits_reset(&state_); }

  template <size_t n>
  void Add(const std::array<uint64_t, n>& numbers) {
    XXH3_64bits_update(&state_, numbers.data(), sizeof(numbers));
  }
  // Adds numbers of one type, and their count.
  template <typename T>
  void Add(const google::protobuf::RepeatedField<T>& field) {
    Add(std::array{static_cast<uint64_t>(field.size())});
    XXH3_64bits_update(&state_, field.data(), static_cast<size_t>(field.size()) * sizeof(T));
  }
  void Add(const TensorFrame& tensor) {
    Add(std::array{static_cast<uint64_t>(ToWire(tensor.dtype)), tensor.rows, tensor.cols});
    for (const Frame* bytes : {&tensor.scales, &tensor.data}) {
      for (const Slice& slice : bytes->slices()) {
        XXH3_64bits_update(&state_, slice.data(), slice.size());
      }
    }
  }

  uint64_t Finish() const { return XXH3_64bits_digest(&state_); }

 private:
  XXH3_state_t state_;
};

}  // namespace

uint64_t ChecksumOf(const internal::v1::ComputeRequest& request, const TensorFrame& hidden_states) {
  Checksum checksum;
  checksum.Add(std::array{request.batch_id(), uint64_t{request.layer()}, request.epoch(),
                          uint64_t{request.total_rows()}, uint64_t{request.first_row()},
                          static_cast<uint64_t>(request.partials_dtype()),
                          static_cast<uint64_t>(request.per_assignment()),
                          static_cast<uint64_t>(request.timeout_us()),
                          static_cast<uint64_t>(request.has_timeout_us())});
  checksum.Add(request.assignments_per_row());
  checksum.Add(request.expert_ids());
  checksum.Add(request.expert_weights());
  checksum.Add(hidden_states);
  return checksum.Finish();
}

uint64_t ChecksumOf(const internal::v1::ComputeResponse& response, const TensorFrame& partials) {
  Checksum checksum;
  checksum.Add(std::array{response.batch_id(), uint64_t{response.first_row()}});
  checksum.Add(partials);
  return checksum.Finish();
}

}  // namespace expertmesh
