#include "client/cpp/command/generate_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/statistics.h"
#include "client/cpp/decoder/generator.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

constexpr size_t kSequences[] = {1, 4, 16};

// Texts that differ, so that their tokens go different ways, and none of which ends early.
absl::StatusOr<double> TokensPerSecond(const Options& options, const TextModel& model,
                                       decoder::MoeLayers* experts,
                                       absl::Span<const uint32_t> prompt, size_t count) {
  std::vector<std::unique_ptr<decoder::Sequence>> sequences;
  std::vector<decoder::Sequence*> pointers;
  for (size_t i = 0; i < count; ++i) {
    decoder::SamplingOptions sampling;
    sampling.temperature = 1.0;
    sampling.seed = options.Whole("seed") + i;
    sequences.push_back(std::make_unique<decoder::Sequence>(*model.decoder, sampling));
    RETURN_IF_ERROR(sequences.back()->Prompt(*model.decoder, prompt, options.Whole("max-tokens")));
    pointers.push_back(sequences.back().get());
  }
  decoder::GeneratorOptions generation;
  generation.ignore_end = true;
  decoder::Generator generator(model.decoder.get(), experts, nullptr, generation);
  uint64_t tokens = 0;
  const absl::Time begin = Clock::Real()->Now();
  RETURN_IF_ERROR(generator.Run(pointers, [&](size_t, uint32_t) {
    ++tokens;
    return absl::OkStatus();
  }));
  return static_cast<double>(tokens) / absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
}

}  // namespace

absl::Status BenchGeneration(const Options& options, TextModel* model) {
  const std::string prompt = options.Has("prompt") ? options.Text("prompt") : "In the beginning";
  ASSIGN_OR_RETURN(const std::vector<uint32_t> tokens, model->tokenizer->Encode(prompt));
  const std::unique_ptr<decoder::MoeLayers> mesh = MeshExperts(*model, options, false);
  ASSIGN_OR_RETURN(const std::unique_ptr<decoder::MoeLayers> local, LocalExperts(model, options));
  const uint64_t rounds = options.Whole("rounds");
  std::vector<std::vector<std::string>> table = {
      {"sequences", "mesh tokens/s", "in process tokens/s", "ratio"}};
  nlohmann::json lines = nlohmann::json::array();
  Progress progress("Generating", std::size(kSequences) * (rounds + 1));
  for (const size_t count : kSequences) {
    std::vector<double> by_mesh;
    std::vector<double> by_process;
    // The first round makes connections, kernels and buffers, and does not count.
    for (uint64_t round = 0; round <= rounds; ++round) {
      ASSIGN_OR_RETURN(const double mesh_speed,
                       TokensPerSecond(options, *model, mesh.get(), tokens, count));
      ASSIGN_OR_RETURN(const double process_speed,
                       TokensPerSecond(options, *model, local.get(), tokens, count));
      if (round > 0) {
        by_mesh.push_back(mesh_speed);
        by_process.push_back(process_speed);
      }
      progress.Add(1);
    }
    const double mesh_median = Percentile(by_mesh, 0.5);
    const double process_median = Percentile(by_process, 0.5);
    table.push_back({absl::StrCat(count), absl::StrFormat("%.1f", mesh_median),
                     absl::StrFormat("%.1f", process_median),
                     absl::StrFormat("%.2f", mesh_median / process_median)});
    lines.push_back({{"sequences", count},
                     {"mesh_tokens_per_second", mesh_median},
                     {"in_process_tokens_per_second", process_median},
                     {"ratio", mesh_median / process_median}});
  }
  std::printf("%s: prompts of %zu tokens, %llu new ones each, median of %llu runs\n%s",
              model->checkpoint->model().family.c_str(), tokens.size(),
              static_cast<unsigned long long>(options.Whole("max-tokens")),
              static_cast<unsigned long long>(rounds), FormatTable(table).c_str());
  if (!options.Has("json")) {
    return absl::OkStatus();
  }
  const nlohmann::json json = {{"family", model->checkpoint->model().family},
                               {"prompt_tokens", tokens.size()},
                               {"max_tokens", options.Whole("max-tokens")},
                               {"rounds", rounds},
                               {"results", lines}};
  return checkpoint::WriteFileAtomically(options.Text("json"), json.dump(2) + "\n",
                                         checkpoint::Durability::kRename);
}

}  // namespace expertmesh::command
