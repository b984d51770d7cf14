#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/compare.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/statistics.h"
#include "common/base/clock.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// Requests that one caller has in flight at most.
constexpr size_t kWindow = 8;
// Tokens of each caller's first answer that are checked against the reference.
constexpr size_t kCheckedTokens = 4;

// What all callers have seen of one layer.
class LayerRecord {
 public:
  explicit LayerRecord(const client::LayerInfo& layer)
      : layer_(layer), used_(layer.num_experts, false) {}

  void Add(const client::Matrix& request, const client::ForwardResult& answer, absl::Duration took,
           bool check) {
    Sample checked;
    const absl::Status status =
        check ? checked.Add(request, answer, kCheckedTokens) : absl::OkStatus();
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
    tokens_ += request.rows();
    ms_.push_back(absl::ToDoubleMilliseconds(took));
    for (const uint32_t expert : answer.routing.expert_ids) {
      if (expert < used_.size()) {
        used_[expert] = true;
      }
    }
    if (check) {
      sample_.Append(checked);
    }
  }

  // The layer's line of the table; how well it agrees with the reference goes to `agreement`. When
  // all callers are done.
  absl::StatusOr<std::vector<std::string>> Row(const checkpoint::MoeCheckpoint& checkpoint,
                                               client::Dtype activation_dtype,
                                               Agreement* agreement) {
    Sample sample;
    std::vector<double> ms;
    uint64_t tokens = 0;
    size_t used = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (!status_.ok()) {
        return status_;
      }
      sample = std::move(sample_);
      ms = std::move(ms_);
      tokens = tokens_;
      used = static_cast<size_t>(std::count(used_.begin(), used_.end(), true));
    }
    ASSIGN_OR_RETURN(*agreement,
                     CompareWithReference(checkpoint, layer_, activation_dtype, sample));
    return std::vector<std::string>{absl::StrCat(layer_.layer),
                                    WithThousands(tokens),
                                    absl::StrFormat("%.2f", Percentile(ms, 0.5)),
                                    absl::StrFormat("%.2f", Percentile(ms, 0.99)),
                                    absl::StrCat(used, " of ", layer_.num_experts),
                                    absl::StrFormat("%.2e", agreement->worst_error)};
  }

 private:
  const client::LayerInfo layer_;
  absl::Mutex mutex_;
  uint64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<double> ms_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> used_ ABSL_GUARDED_BY(mutex_);
  Sample sample_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// One caller with a stream of its own: round by round, a batch of tokens through every layer.
class Caller {
 public:
  Caller(const Mesh& mesh, const Options& options, uint64_t seed, std::deque<LayerRecord>* records,
         Progress* progress)
      : mesh_(mesh),
        rounds_(options.Whole("rounds")),
        tokens_(options.Whole("tokens")),
        seed_(seed),
        records_(records),
        progress_(progress) {
    forward_.timeout = options.Duration("timeout");
    forward_.return_routing = true;
    forward_.output_dtype = client::Dtype::kFloat32;
  }

  void Run() {
    const std::unique_ptr<client::ForwardStream> stream = mesh_.client->OpenStream();
    for (uint64_t round = 0; round < rounds_; ++round) {
      const client::Matrix hidden =
          RandomHidden(mesh_.model.activation_dtype, tokens_, mesh_.model.d_model, seed_ + round);
      for (size_t i = 0; i < mesh_.layers.size(); ++i) {
        if (!AwaitInFlight(kWindow - 1).ok()) {
          return;
        }
        Send(stream.get(), i, hidden, round == 0);
      }
    }
    AwaitInFlight(0).IgnoreError();
  }

  // After Run.
  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  // Waits until at most `count` requests are in flight; the first error ends the wait.
  absl::Status AwaitInFlight(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return in_flight_ <= count || !status_.ok();
    };
    mutex_.Await(absl::Condition(&reached));
    return status_;
  }

  void Send(client::ForwardStream* stream, size_t index, const client::Matrix& hidden, bool check) {
    {
      absl::MutexLock lock(&mutex_);
      ++in_flight_;
    }
    const absl::Time sent = Clock::Real()->Now();
    stream->Send(
        mesh_.layers[index].layer, hidden, forward_,
        [this, index, hidden, check, sent](const absl::StatusOr<client::ForwardResult>& answer) {
          const absl::Duration took = Clock::Real()->Now() - sent;
          if (answer.ok()) {
            (*records_)[index].Add(hidden, *answer, took, check);
            progress_->Add(1);
          }
          absl::MutexLock lock(&mutex_);
          status_.Update(In(absl::StrCat("layer ", mesh_.layers[index].layer), answer.status()));
          --in_flight_;
        });
  }

  const Mesh& mesh_;
  const uint64_t rounds_;
  const size_t tokens_;
  const uint64_t seed_;
  std::deque<LayerRecord>* const records_;
  Progress* const progress_;
  client::ForwardOptions forward_;
  absl::Mutex mutex_;
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// All callers at once; how long they took together.
absl::StatusOr<absl::Duration> RunCallers(const Mesh& mesh, const Options& options,
                                          std::deque<LayerRecord>* records) {
  const uint64_t callers = options.Whole("callers");
  const uint64_t rounds = options.Whole("rounds");
  Progress progress("Sending", callers * rounds * mesh.layers.size());
  std::deque<Caller> running;
  std::vector<std::thread> threads;
  const absl::Time begin = Clock::Real()->Now();
  for (uint64_t i = 0; i < callers; ++i) {
    Caller& caller = running.emplace_back(mesh, options, 1 + i * rounds, records, &progress);
    threads.emplace_back([&caller] { caller.Run(); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const absl::Duration took = Clock::Real()->Now() - begin;
  for (Caller& caller : running) {
    RETURN_IF_ERROR(In(mesh.address, caller.status()));
  }
  return took;
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const Mesh mesh, OpenMesh(options));
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   OpenSameModel(mesh, options.Text("model")));
  std::deque<LayerRecord> records;
  for (const client::LayerInfo& layer : mesh.layers) {
    records.emplace_back(layer);
  }
  ASSIGN_OR_RETURN(const absl::Duration took, RunCallers(mesh, options, &records));
  const double tolerance = Tolerance(options, mesh.model.activation_dtype);
  std::vector<std::vector<std::string>> table = {
      {"layer", "tokens", "p50 ms", "p99 ms", "experts used", "worst error"}};
  std::vector<uint32_t> wrong;
  size_t checked = 0;
  {
    Progress progress("Verifying", mesh.layers.size());
    for (size_t i = 0; i < records.size(); ++i) {
      Agreement agreement;
      ASSIGN_OR_RETURN(std::vector<std::string> row,
                       records[i].Row(*checkpoint, mesh.model.activation_dtype, &agreement));
      table.push_back(std::move(row));
      checked += agreement.same_experts + agreement.other_experts;
      if (!agreement.Within(tolerance)) {
        wrong.push_back(mesh.layers[i].layer);
      }
      progress.Add(1);
    }
  }
  const double tokens = static_cast<double>(options.Whole("callers") * options.Whole("rounds") *
                                            options.Whole("tokens") * mesh.layers.size());
  std::printf("%s, %llu callers with up to %zu requests in flight, %llu tokens a request\n%s",
              mesh.model.family.c_str(), static_cast<unsigned long long>(options.Whole("callers")),
              kWindow, static_cast<unsigned long long>(options.Whole("tokens")),
              FormatTable(table).c_str());
  std::printf(
      "%.0f tokens x layers in %.2f s: %.0f tokens/s through one layer; %zu tokens checked "
      "against the reference\n",
      tokens, absl::ToDoubleSeconds(took), tokens / absl::ToDoubleSeconds(took), checked);
  if (!wrong.empty()) {
    return absl::DataLossError(absl::StrCat(
        "layers ", FormatRanges(wrong), " differ from the reference: error above ",
        absl::StrFormat("%.0e", tolerance), " or other experts; expertmesh verify tells more"));
  }
  return absl::OkStatus();
}

}  // namespace

Command DemoCommand() {
  return {{"demo",
           "Sends token batches through every MoE layer from several callers at once, checks a "
           "sample of the answers, and shows what happened.",
           "",
           WithRouter({{.name = "model",
                        .value = "DIR",
                        .help = "the checkpoint that the mesh serves",
                        .required = true},
                       LayersOption(),
                       CountOption("callers", "callers at once, each with a stream", "4"),
                       CountOption("tokens", "tokens of a request", "64"),
                       CountOption("rounds", "requests of each caller and layer", "25"),
                       ToleranceOption(),
                       TimeoutOption("60")})},
          &Run};
}

}  // namespace expertmesh::command
