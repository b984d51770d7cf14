// A recording of routing as a load.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_RECORDED_LOAD_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_RECORDED_LOAD_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/replay/load_source.h"
#include "common/balance/measures.h"
#include "common/balance/routing_record.h"

namespace expertmesh::replay {

// How long batches took, in steps of 2 %. Not thread-safe.
class DurationHistogram {
 public:
  void Add(uint32_t micros);
  uint64_t count() const { return count_; }
  // 0 without durations.
  double Quantile(double share) const;

 private:
  std::map<int, uint64_t> buckets_;
  uint64_t count_ = 0;
};

// Intervals without batches are left out. It has counts alone: no scores.
class RecordedLoad final : public LoadSource {
 public:
  // Reads all of the recording NAME (and NAME.1), into a gigabyte at most. Errors are those of
  // RoutingRecordReader, and
  //   INVALID_ARGUMENT    it has no batches.
  //   RESOURCE_EXHAUSTED  it has too many intervals: choose longer ones.
  static absl::StatusOr<std::unique_ptr<RecordedLoad>> Read(const std::string& name,
                                                            double interval_s);

  absl::Span<const balance::RecordedLayer> layers() const override { return model_.layers; }
  double interval_s() const override { return interval_s_; }
  size_t intervals() const override { return intervals_.size(); }
  bool has_scores() const override { return false; }
  std::string Describe() const override;
  void Next(IntervalLoad* load) override;

  const balance::RecordedModel& model() const { return model_; }
  // As they were measured.
  const DurationHistogram& durations() const { return durations_; }
  // Assignments of all of it, [layers][num_experts].
  std::vector<std::vector<double>> Assignments() const;
  // Tokens of a layer in a second, mean over layers, over the time that was recorded.
  double TokensPerSecond() const;

 private:
  struct Counted {
    uint64_t tokens = 0;
    uint64_t batches = 0;
    double violations = 0;
    // Tokens and batches by size, in three steps for each doubling.
    std::map<int, BatchSize> sizes;
    std::vector<uint64_t> assignments;  // Empty: no batches.
  };
  struct Interval {
    uint64_t number = 0;  // Since the first batch.
    std::vector<Counted> layers;
  };

  RecordedLoad(std::string name, double interval_s)
      : name_(std::move(name)), interval_s_(interval_s) {}
  absl::Status ReadFile(const std::string& path);
  absl::Status Count(const balance::RecordedBatch& batch, const std::string& path);
  void CountSize(uint32_t tokens, Counted* counted);
  absl::StatusOr<Interval*> Find(uint64_t time_us, const std::string& path);

  const std::string name_;
  const double interval_s_;
  balance::RecordedModel model_;
  uint64_t first_us_ = 0;
  uint64_t last_us_ = 0;
  uint64_t batches_ = 0;
  uint64_t bytes_ = 0;  // What intervals_ take.
  uint64_t cut_off_bytes_ = 0;
  bool older_left_out_ = false;
  std::vector<Interval> intervals_;  // By number.
  DurationHistogram durations_;
  size_t next_ = 0;
  std::vector<uint64_t> of_batch_;  // Working memory.
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_RECORDED_LOAD_H_
