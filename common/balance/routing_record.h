// Which experts the tokens of a mesh went to, in a file: what was recorded can be replayed with
// other nodes, placements and policies.
//
// A recording is two files at most: NAME, and NAME.1 with what came before it. Each is
//
//   header   "EXMROUTE", version (4 bytes), size of the rest of the header (4), fingerprint and
//            outline of the model (4 + text each), number of layers (4), for each layer its index,
//            num_experts and top_k (4 each), XXH3 of all of the above (8)
//   blocks   one for each batch of a layer: size of the body (4), XXH3 of that size and of where
//   the
//            block begins (low 4 bytes), the body, XXH3 of the body (8), which is seeded with the
//            header's. Body: time (8), epoch (8), layer (4), tokens (4), duration of the batch (4),
//            time that nodes computed (4), bytes of an id (4: 1 or 2), ids [tokens, top_k]
//
// little endian. An id of num_experts says that the slot has no expert. A file that ends within a
// block was cut off there, by a kill or a full disk: what is before it counts.
#ifndef EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_H_
#define EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/model_description.h"
#include "common/model/model_identity.h"

namespace expertmesh::balance {

// A token's slot without an expert, for example beyond an expert's capacity.
inline constexpr uint32_t kNoExpert = 0xffffffff;
// Not known.
inline constexpr uint32_t kNoMicros = 0xffffffff;

struct RecordedLayer {
  // Index of the layer in the model.
  uint32_t layer = 0;
  uint32_t num_experts = 0;
  uint32_t top_k = 0;

  friend bool operator==(const RecordedLayer&, const RecordedLayer&) = default;
};

struct RecordedModel {
  ModelIdentity identity;
  // Ascending by layer.
  std::vector<RecordedLayer> layers;
};

// The model's layers. Those with expert choice have no slots to record and are left out.
RecordedModel RecordedModelOf(const ModelDescription& model, const ModelIdentity& identity);

// INVALID_ARGUMENT naming the layer, the value and what is accepted: at least one layer, at most
// 4,096 of them, each once; 1 to 65,535 experts; top_k from 1 to as many as there are experts.
absl::Status ValidateRecordedModel(const RecordedModel& model);

// One batch of one layer.
struct RecordedBatch {
  // Microseconds since 1970. Not below that of the batch before it, give or take threads.
  uint64_t time_us = 0;
  // That of bias and placement.
  uint64_t epoch = 0;
  uint32_t layer = 0;
  uint32_t tokens = 0;
  // How long the batch took, and how long its slowest node computed; or kNoMicros.
  uint32_t batch_us = kNoMicros;
  uint32_t node_us = kNoMicros;
  // [tokens, top_k] Experts, or kNoExpert.
  std::vector<uint32_t> experts;

  friend bool operator==(const RecordedBatch&, const RecordedBatch&) = default;
};

// Writes a recording. Every batch is in the file when Add returns, so that a killed process loses
// none; that it is on the disk is not waited for. Not thread-safe.
class RoutingRecordWriter {
 public:
  // NAME and NAME.1 take `max_bytes` together at most. A recording that is there already becomes
  // NAME.1, in place of an older one.
  //   INVALID_ARGUMENT  the model is none (ValidateRecordedModel), or max_bytes is too few.
  //   ALREADY_EXISTS    `name` is there and is no recording: it stays as it is.
  //   UNAVAILABLE       the file cannot be written.
  static absl::StatusOr<std::unique_ptr<RoutingRecordWriter>> Create(std::string name,
                                                                     RecordedModel model,
                                                                     uint64_t max_bytes);
  ~RoutingRecordWriter();
  RoutingRecordWriter(const RoutingRecordWriter&) = delete;
  RoutingRecordWriter& operator=(const RoutingRecordWriter&) = delete;

  // After an error the file is as it was before, and further batches may be tried.
  //   INVALID_ARGUMENT    the batch is none of the model's, or larger than half of max_bytes.
  //   UNAVAILABLE         the file cannot be written.
  absl::Status Add(const RecordedBatch& batch);

  // In NAME and NAME.1.
  uint64_t bytes() const { return size_ + older_size_; }
  const RecordedModel& model() const { return model_; }

 private:
  RoutingRecordWriter(std::string name, RecordedModel model, uint64_t max_bytes);
  // Makes NAME the older file, if it is there, and begins a new one.
  absl::Status Begin();
  absl::Status Write(absl::string_view bytes);

  const std::string name_;
  const RecordedModel model_;
  const uint64_t max_file_bytes_;
  std::string header_;
  uint64_t seed_ = 0;
  int file_ = -1;
  uint64_t size_ = 0;
  uint64_t older_size_ = 0;
  std::string block_;  // Working memory.
};

// Reads one file of a recording. Not thread-safe.
class RoutingRecordReader {
 public:
  // Errors name file, offset and remedy. Nothing is sized by what has not been checked.
  //   NOT_FOUND            there is no such file.
  //   INVALID_ARGUMENT     it is no recording.
  //   FAILED_PRECONDITION  it is one of another version.
  //   OUT_OF_RANGE         it is cut off within its header.
  //   DATA_LOSS            its header is damaged.
  //   UNAVAILABLE          it cannot be read.
  static absl::StatusOr<std::unique_ptr<RoutingRecordReader>> Open(const std::string& path);
  ~RoutingRecordReader();
  RoutingRecordReader(const RoutingRecordReader&) = delete;
  RoutingRecordReader& operator=(const RoutingRecordReader&) = delete;

  // False when there are no more batches; cut_off() says whether the file ends within one.
  //   DATA_LOSS    a block is damaged. What was read before it is as it was written.
  //   UNAVAILABLE  the file cannot be read.
  absl::StatusOr<bool> Next(RecordedBatch* batch);

  const std::string& path() const { return path_; }
  const RecordedModel& model() const { return model_; }
  uint64_t batches() const { return batches_; }
  // Bytes after the last whole batch: above 0 once Next has come to an unfinished one.
  uint64_t cut_off_bytes() const { return cut_off_bytes_; }

 private:
  RoutingRecordReader(std::string path, int file, uint64_t size);
  absl::Status ReadHeader();
  // Reads `count` bytes from `offset`, all of which the file has.
  absl::Status ReadAt(uint64_t offset, uint64_t count, std::string* bytes) const;
  absl::Status Damaged(absl::string_view what) const;

  const std::string path_;
  const int file_;
  const uint64_t size_;
  RecordedModel model_;
  uint64_t seed_ = 0;
  uint64_t offset_ = 0;
  uint64_t batches_ = 0;
  uint64_t cut_off_bytes_ = 0;
  std::string block_;  // Working memory.
};

// The files of the recording `name`, the older one first: those of NAME.1 and NAME that are there.
// NOT_FOUND when none is.
absl::StatusOr<std::vector<std::string>> RecordingFiles(const std::string& name);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_ROUTING_RECORD_H_
