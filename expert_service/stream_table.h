// The compute streams that are open, and which batch ids are in flight on each.
#ifndef EXPERTMESH_EXPERT_SERVICE_STREAM_TABLE_H_
#define EXPERTMESH_EXPERT_SERVICE_STREAM_TABLE_H_

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "common/transport/transport.h"

namespace expertmesh::node {

// Names one stream of one router; never used again.
using StreamId = uint64_t;

// Not thread-safe.
class StreamTable {
 public:
  StreamId Open(std::shared_ptr<FrameSink> replies);

  // Removes the stream, with the ids in flight on it. Null when it is not open.
  std::shared_ptr<FrameSink> Close(StreamId stream);

  // Where answers of the stream go. Null when it is not open.
  std::shared_ptr<FrameSink> RepliesOf(StreamId stream) const;

  // From now on `batch_id` is in flight on the stream, which is open.
  //   INVALID_ARGUMENT  it is in flight already.
  absl::Status AddBatch(StreamId stream, uint64_t batch_id);
  // It may be used again. Does nothing when the stream is closed.
  void RemoveBatch(StreamId stream, uint64_t batch_id);

 private:
  struct Stream {
    std::shared_ptr<FrameSink> replies;
    absl::flat_hash_set<uint64_t> in_flight;  // Batch ids.
  };

  StreamId next_ = 1;
  absl::flat_hash_map<StreamId, Stream> streams_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_STREAM_TABLE_H_
