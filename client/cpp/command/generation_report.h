// Where the time of a generation went, and what the experts had to do.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_GENERATION_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_GENERATION_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cpp/decoder/decoder.h"
#include "common/model/model_description.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::command {

// A line of blocks as high as the loads, the highest full; experts that had nothing are dots. More
// than `width` of them are taken together in equal runs.
std::string LoadBars(absl::Span<const uint64_t> load, size_t width);

class GenerationReport final : public decoder::DecoderObserver {
 public:
  explicit GenerationReport(const ModelDescription& model);

  void OnMoe(uint32_t layer, size_t tokens, absl::Duration took,
             const decoder::MoeResult& result) override;
  void OnForward(absl::Duration attention, absl::Duration total) override;

  // `tokens` is what was generated in `took`, all sequences together.
  std::string Text(uint64_t tokens, absl::Duration took) const;
  nlohmann::json Json(uint64_t tokens, absl::Duration took) const;

 private:
  struct Layer {
    std::vector<double> ms;  // How long each call took.
    std::vector<uint64_t> load;
    uint64_t tokens = 0;
  };
  // Shares of `took` by stage, in the order of the way; they add up to 1.
  std::vector<std::pair<std::string, double>> Shares(absl::Duration took) const;

  std::map<uint32_t, Layer> layers_;
  absl::Duration attention_;
  absl::Duration forward_;
  absl::Duration moe_;
  absl::Duration router_;
  absl::Duration queues_;
  absl::Duration experts_;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_GENERATION_REPORT_H_
