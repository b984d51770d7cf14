#include "client/cpp/replay/recorded_load.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace expertmesh::replay {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
// Buckets for each factor of e.
constexpr double kBuckets = 50;
// Sizes of batches for each doubling.
constexpr double kSizes = 3;
// What one takes in a map, about.
constexpr uint64_t kSizeBytes = 64;

size_t PositionOf(const balance::RecordedModel& model, uint32_t layer) {
  const auto found = std::lower_bound(
      model.layers.begin(), model.layers.end(), layer,
      [](const balance::RecordedLayer& one, uint32_t wanted) { return one.layer < wanted; });
  EXPERTMESH_CHECK(found != model.layers.end() && found->layer == layer);
  return static_cast<size_t>(found - model.layers.begin());
}

}  // namespace

void DurationHistogram::Add(uint32_t micros) {
  ++buckets_[static_cast<int>(std::lround(std::log(micros + 1.0) * kBuckets))];
  ++count_;
}

double DurationHistogram::Quantile(double share) const {
  uint64_t seen = 0;
  for (const auto& [bucket, count] : buckets_) {
    seen += count;
    if (static_cast<double>(seen) >= share * static_cast<double>(count_)) {
      return std::expm1(bucket / kBuckets);
    }
  }
  return 0;
}

absl::StatusOr<std::unique_ptr<RecordedLoad>> RecordedLoad::Read(const std::string& name,
                                                                 double interval_s) {
  if (!(interval_s >= 1e-3)) {
    return absl::InvalidArgumentError(
        absl::StrCat("interval is ", interval_s, " s; use 0.001 or more"));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> files, balance::RecordingFiles(name));
  std::unique_ptr<RecordedLoad> load(new RecordedLoad(name, interval_s));
  {
    // What the newest one is of counts.
    ASSIGN_OR_RETURN(const auto newest, balance::RoutingRecordReader::Open(files.back()));
    load->model_ = newest->model();
  }
  for (const std::string& file : files) {
    RETURN_IF_ERROR(load->ReadFile(file));
  }
  if (load->intervals_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": the recording has no batches; record while there is traffic"));
  }
  return load;
}

absl::Status RecordedLoad::ReadFile(const std::string& path) {
  ASSIGN_OR_RETURN(const auto reader, balance::RoutingRecordReader::Open(path));
  if (reader->model().layers != model_.layers ||
      reader->model().identity.fingerprint != model_.identity.fingerprint) {
    older_left_out_ = true;
    return absl::OkStatus();
  }
  balance::RecordedBatch batch;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader->Next(&batch));
    if (!more) {
      cut_off_bytes_ += reader->cut_off_bytes();
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(Count(batch, path));
  }
}

absl::StatusOr<RecordedLoad::Interval*> RecordedLoad::Find(uint64_t time_us,
                                                           const std::string& path) {
  const uint64_t since = time_us > first_us_ ? time_us - first_us_ : 0;
  const auto number = static_cast<uint64_t>(static_cast<double>(since) / (interval_s_ * 1e6));
  const auto place =
      std::lower_bound(intervals_.begin(), intervals_.end(), number,
                       [](const Interval& one, uint64_t wanted) { return one.number < wanted; });
  if (place != intervals_.end() && place->number == number) {
    return &*place;
  }
  for (const balance::RecordedLayer& layer : model_.layers) {
    bytes_ += sizeof(Counted) + layer.num_experts * sizeof(uint64_t);
  }
  if (bytes_ > kMaxBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": the recording has more than ", intervals_.size(), " intervals of ",
                     interval_s_, " s, which take a gigabyte; use a longer interval"));
  }
  Interval interval = {.number = number, .layers = std::vector<Counted>(model_.layers.size())};
  return &*intervals_.insert(place, std::move(interval));
}

absl::Status RecordedLoad::Count(const balance::RecordedBatch& batch, const std::string& path) {
  if (batches_ == 0) {
    first_us_ = batch.time_us;
  }
  last_us_ = std::max(last_us_, batch.time_us);
  ++batches_;
  if (batch.batch_us != balance::kNoMicros) {
    durations_.Add(batch.batch_us);
  }
  const size_t position = PositionOf(model_, batch.layer);
  ASSIGN_OR_RETURN(Interval* const interval, Find(batch.time_us, path));
  Counted& counted = interval->layers[position];
  counted.assignments.resize(model_.layers[position].num_experts);
  of_batch_.assign(counted.assignments.size(), 0);
  for (const uint32_t expert : batch.experts) {
    if (expert != balance::kNoExpert) {
      ++of_batch_[expert];
      ++counted.assignments[expert];
    }
  }
  counted.tokens += batch.tokens;
  ++counted.batches;
  CountSize(batch.tokens, &counted);
  counted.violations += balance::MaxViolation(of_batch_);
  return absl::OkStatus();
}

void RecordedLoad::CountSize(uint32_t tokens, Counted* counted) {
  if (tokens == 0) {
    return;
  }
  const auto step = static_cast<int>(std::lround(kSizes * std::log2(tokens)));
  const auto [place, added] = counted->sizes.try_emplace(step);
  place->second.tokens += tokens;
  ++place->second.batches;
  bytes_ += added ? kSizeBytes : 0;
}

std::string RecordedLoad::Describe() const {
  std::string text =
      absl::StrCat(name_, ": ", batches_, " batches in ",
                   static_cast<double>(last_us_ - std::min(first_us_, last_us_)) / 1e6, " s");
  if (durations_.count() > 0) {
    absl::StrAppend(&text, ", measured p50 ", std::lround(durations_.Quantile(0.5)), " us, p99 ",
                    std::lround(durations_.Quantile(0.99)), " us");
  }
  if (cut_off_bytes_ > 0) {
    absl::StrAppend(&text, ", cut off within a batch (", cut_off_bytes_, " bytes not read)");
  }
  if (older_left_out_) {
    absl::StrAppend(&text, ", without ", name_, ".1, which is of another model");
  }
  return text;
}

void RecordedLoad::Next(IntervalLoad* load) {
  EXPERTMESH_CHECK(next_ < intervals_.size());
  const Interval& interval = intervals_[next_++];
  load->start_s = static_cast<double>(interval.number) * interval_s_;
  load->layers.resize(interval.layers.size());
  for (size_t i = 0; i < interval.layers.size(); ++i) {
    const Counted& counted = interval.layers[i];
    LayerLoad& layer = load->layers[i];
    layer.tokens = static_cast<double>(counted.tokens);
    layer.batch_sizes.clear();
    for (const auto& [step, size] : counted.sizes) {
      layer.batch_sizes.push_back({.tokens = size.tokens / size.batches, .batches = size.batches});
    }
    layer.batch_violation =
        counted.batches == 0 ? 0 : counted.violations / static_cast<double>(counted.batches);
    layer.assignments.assign(model_.layers[i].num_experts, 0);
    std::copy(counted.assignments.begin(), counted.assignments.end(), layer.assignments.begin());
  }
}

std::vector<std::vector<double>> RecordedLoad::Assignments() const {
  std::vector<std::vector<double>> sums;
  for (const balance::RecordedLayer& layer : model_.layers) {
    sums.emplace_back(layer.num_experts);
  }
  for (const Interval& interval : intervals_) {
    for (size_t i = 0; i < sums.size(); ++i) {
      for (size_t expert = 0; expert < interval.layers[i].assignments.size(); ++expert) {
        sums[i][expert] += static_cast<double>(interval.layers[i].assignments[expert]);
      }
    }
  }
  return sums;
}

double RecordedLoad::TokensPerSecond() const {
  double tokens = 0;
  for (const Interval& interval : intervals_) {
    for (const Counted& layer : interval.layers) {
      tokens += static_cast<double>(layer.tokens);
    }
  }
  const double seconds =
      std::max(static_cast<double>(last_us_ - std::min(first_us_, last_us_)) / 1e6, interval_s_);
  return tokens / static_cast<double>(model_.layers.size()) / seconds;
}

}  // namespace expertmesh::replay
