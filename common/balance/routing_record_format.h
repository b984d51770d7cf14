// Bytes of a recording (routing_record.h), without files.
#ifndef EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_FORMAT_H_
#define EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/balance/routing_record.h"

namespace expertmesh::balance {

inline constexpr absl::string_view kRecordMagic = "EXMROUTE";
inline constexpr uint32_t kRecordVersion = 1;
// Magic, version, size of the rest.
inline constexpr uint64_t kRecordPrefixBytes = 16;
// The rest of a header, checksum included, is no larger than this.
inline constexpr uint32_t kMaxRecordHeaderBytes = 128 << 10;
// Size of the body, and the check of it.
inline constexpr uint64_t kBlockPrefixBytes = 8;
// A body is no larger than this.
inline constexpr uint32_t kMaxBlockBytes = 64 << 20;
inline constexpr uint64_t kBlockChecksumBytes = 8;

// All of a header. `seed`: what the checksums of its blocks are seeded with.
std::string EncodeRecordHeader(const RecordedModel& model, uint64_t* seed);

// Bytes of the rest of a header that begins with `prefix`, kRecordPrefixBytes long. Messages do not
// name the file.
//   INVALID_ARGUMENT     no recording.
//   FAILED_PRECONDITION  one of another version.
//   DATA_LOSS            an impossible size.
absl::StatusOr<uint32_t> DecodeRecordPrefix(absl::string_view prefix);
// `header`: prefix and rest. DATA_LOSS when it is damaged.
absl::StatusOr<RecordedModel> DecodeRecordHeader(absl::string_view header, uint64_t* seed);

// One block that begins at `offset` of its file. The batch is one of `layer`.
void EncodeBlock(const RecordedBatch& batch, const RecordedLayer& layer, uint64_t offset,
                 uint64_t seed, std::string* block);
// Size of the body. DATA_LOSS when the prefix is damaged.
absl::StatusOr<uint32_t> DecodeBlockPrefix(absl::string_view prefix, uint64_t offset);
// `block`: body and checksum. DATA_LOSS when it is damaged.
absl::Status DecodeBlock(absl::string_view block, const RecordedModel& model, uint64_t seed,
                         RecordedBatch* batch);

// Null when the model has no such layer.
const RecordedLayer* FindRecordedLayer(const RecordedModel& model, uint32_t layer);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_FORMAT_H_
