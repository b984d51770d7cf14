// Times MoE layers on a device, whole batches from host memory to host memory, two in flight:
//
//   gpu-layers --device cuda:0 --describe          says what the device is
//   gpu-layers --device cuda:0 SHAPE...            one line of JSON for each number of tokens
//
// SHAPE: name:experts:k:d_model:width:tokens,tokens...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "common/experts/device.h"
#include "common/tensor/aligned_buffer.h"
#include "nlohmann/json.hpp"
#include "tests/unit/common/experts/expert_oracle.h"

ABSL_FLAG(std::string, device, "cuda:0", "As of expertmesh-expert");
ABSL_FLAG(std::string, device_product, "fixed-order", "As of expertmesh-expert");
ABSL_FLAG(bool, describe, false, "Say what the device is, and end");
ABSL_FLAG(double, seconds, 1.0, "How long each number of tokens is timed, at least");

namespace expertmesh::experts {
namespace {

constexpr size_t kInFlight = 2;
// Routings in turn, so that weights come from memory as in a model of many layers.
constexpr size_t kVariants = 16;

struct Shape {
  std::string name;
  uint32_t experts = 0;
  uint32_t top_k = 0;
  ExpertOptions expert;
  std::vector<uint32_t> tokens;
};

absl::StatusOr<Shape> ParseShape(absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  Shape shape;
  bool good = parts.size() == 6 && absl::SimpleAtoi(parts[1], &shape.experts) &&
              absl::SimpleAtoi(parts[2], &shape.top_k) &&
              absl::SimpleAtoi(parts[3], &shape.expert.d_model) &&
              absl::SimpleAtoi(parts[4], &shape.expert.intermediate_size);
  if (good) {
    shape.name = parts[0];
    for (const absl::string_view each : absl::StrSplit(parts[5], ',')) {
      good = good && absl::SimpleAtoi(each, &shape.tokens.emplace_back());
    }
  }
  if (!good || shape.top_k < 1 || shape.top_k > shape.experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not name:experts:k:d_model:width:tokens,tokens..."));
  }
  return shape;
}

struct Routing {
  std::vector<const PackedExpert*> experts;
  size_t hit = 0;
};

// Every expert as likely as any other.
Routing RandomRouting(const Shape& shape, uint32_t tokens,
                      const std::vector<std::shared_ptr<const PackedExpert>>& experts,
                      std::mt19937& random) {
  Routing routing;
  std::vector<uint32_t> ids(shape.experts);
  std::vector<bool> used(shape.experts);
  for (uint32_t e = 0; e < shape.experts; ++e) {
    ids[e] = e;
  }
  for (uint32_t token = 0; token < tokens; ++token) {
    std::shuffle(ids.begin(), ids.end(), random);
    for (uint32_t slot = 0; slot < shape.top_k; ++slot) {
      routing.experts.push_back(experts[ids[slot]].get());
      used[ids[slot]] = true;
    }
  }
  routing.hit = static_cast<size_t>(std::count(used.begin(), used.end(), true));
  return routing;
}

// Submits batches, never more than kInFlight at once.
class Pipeline {
 public:
  explicit Pipeline(Backend* backend) : backend_(backend) {}

  void Submit(const GroupedBatch& batch) {
    {
      absl::MutexLock lock(&mutex_);
      const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return in_flight_ < kInFlight;
      };
      mutex_.Await(absl::Condition(&room));
      ++in_flight_;
    }
    backend_->Submit(batch, [this](const absl::Status& status) {
      const absl::MutexLock lock(&mutex_);
      --in_flight_;
      status_.Update(status);
    });
  }

  absl::Status Finish() {
    absl::MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; };
    mutex_.Await(absl::Condition(&idle));
    return status_;
  }

 private:
  Backend* const backend_;
  absl::Mutex mutex_;
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// What batches of so many tokens read, and where their results go.
struct Batches {
  std::vector<Routing> routings;
  AlignedBuffer hidden;
  std::vector<uint32_t> row_begin;
  std::vector<float> weights;
  std::vector<std::vector<float>> partials;
};

Batches MakeBatches(const Shape& shape, uint32_t tokens, Dtype dtype,
                    const std::vector<std::shared_ptr<const PackedExpert>>& experts) {
  std::mt19937 random(2);
  Batches batches;
  for (size_t variant = 0; variant < kVariants; ++variant) {
    batches.routings.push_back(RandomRouting(shape, tokens, experts, random));
  }
  const size_t values = size_t{tokens} * shape.expert.d_model;
  batches.hidden = AlignedBuffer(values * BytesOf(dtype));
  const std::vector<float> hidden = RandomValues(random, values, 1.0f, dtype);
  ConvertElements(Dtype::kF32, hidden.data(), dtype, batches.hidden.data(), values);
  for (uint32_t token = 0; token <= tokens; ++token) {
    batches.row_begin.push_back(token * shape.top_k);
  }
  batches.weights.assign(size_t{tokens} * shape.top_k, 1.0f / static_cast<float>(shape.top_k));
  batches.partials.assign(kVariants, std::vector<float>(values));
  return batches;
}

absl::StatusOr<nlohmann::json> Time(
    const Shape& shape, uint32_t tokens, Backend& backend,
    const std::vector<std::shared_ptr<const PackedExpert>>& experts) {
  Batches batches = MakeBatches(shape, tokens, backend.compute_dtype(), experts);
  const auto run = [&](size_t first, size_t count, size_t* hit) {
    Pipeline pipeline(&backend);
    for (size_t i = first; i < first + count; ++i) {
      const Routing& routing = batches.routings[i % kVariants];
      *hit += routing.hit;
      pipeline.Submit({batches.hidden.data(), tokens, shape.expert.d_model, batches.row_begin,
                       routing.experts, batches.weights, ApplyWeight::kOutput,
                       batches.partials[i % kVariants].data()});
    }
    return pipeline.Finish();
  };
  size_t hit = 0;
  RETURN_IF_ERROR(run(0, kVariants, &hit));  // Warm.
  hit = 0;
  size_t count = 0;
  const auto begin = std::chrono::steady_clock::now();
  double seconds = 0;
  while (seconds < absl::GetFlag(FLAGS_seconds)) {
    RETURN_IF_ERROR(run(count, kVariants, &hit));
    count += kVariants;
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  const double parameters = static_cast<double>(shape.expert.parameters());
  const auto batches_run = static_cast<double>(count);
  return nlohmann::json{
      {"shape", shape.name},
      {"tokens", tokens},
      {"us", 1e6 * seconds / batches_run},
      {"experts_hit", static_cast<double>(hit) / batches_run},
      {"bytes_per_second",
       static_cast<double>(hit) * static_cast<double>(experts[0]->bytes()) / seconds},
      {"flops", batches_run * tokens * shape.top_k * 2 * parameters / seconds}};
}

absl::Status RunShape(const Shape& shape, Backend& backend) {
  std::mt19937 random(1);
  const TestExpert expert(random, shape.expert, Storage::Plain(Dtype::kBF16));
  std::vector<std::shared_ptr<const PackedExpert>> experts;
  for (uint32_t e = 0; e < shape.experts; ++e) {
    // With the same values: what they are makes no difference to the time.
    ASSIGN_OR_RETURN(experts.emplace_back(), backend.Pack(shape.expert, expert.weights(), {}));
  }
  for (const uint32_t tokens : shape.tokens) {
    ASSIGN_OR_RETURN(const nlohmann::json line, Time(shape, tokens, backend, experts));
    std::puts(line.dump().c_str());
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status Run(const std::vector<char*>& rest) {
  DeviceOptions options;
  ASSIGN_OR_RETURN(options.product, ParseDeviceProduct(absl::GetFlag(FLAGS_device_product)));
  ASSIGN_OR_RETURN(const Device device,
                   OpenDevice(absl::GetFlag(FLAGS_device), ProgramVersion().Text(), options));
  const nlohmann::json info = {{"device", device.info.name},
                               {"peak_bytes_per_second", device.info.peak_bytes_per_second},
                               {"peak_flops", device.info.peak_bf16_flops},
                               {"product", absl::GetFlag(FLAGS_device_product)},
                               {"version", ProgramVersion().Text()}};
  std::puts(info.dump().c_str());
  if (absl::GetFlag(FLAGS_describe)) {
    return absl::OkStatus();
  }
  for (size_t i = 1; i < rest.size(); ++i) {
    ASSIGN_OR_RETURN(const Shape shape, ParseShape(rest[i]));
    if (const absl::Status status = RunShape(shape, *device.backend);
        absl::IsResourceExhausted(status)) {
      std::puts(
          nlohmann::json{{"shape", shape.name}, {"left_out", status.message()}}.dump().c_str());
    } else {
      RETURN_IF_ERROR(status);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace expertmesh::experts

int main(int argc, char** argv) {
  const absl::Status status = expertmesh::experts::Run(absl::ParseCommandLine(argc, argv));
  if (!status.ok()) {
    std::fprintf(stderr, "gpu-layers: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
