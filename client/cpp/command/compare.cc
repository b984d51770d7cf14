#include "client/cpp/command/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh {
namespace {

// Choices that differ by less are the same: another order of summation moves a float32 score by as
// much.
constexpr float kTie = 1e-6f;

double RelativeError(absl::Span<const float> value, absl::Span<const float> expected) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const double delta = double{value[i]} - double{expected[i]};
    difference += delta * delta;
    norm += double{expected[i]} * double{expected[i]};
  }
  if (difference == 0) {
    return 0;
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

bool SameExperts(absl::Span<const uint32_t> left, absl::Span<const uint32_t> right) {
  std::vector<uint32_t> a(left.begin(), left.end());
  std::vector<uint32_t> b(right.begin(), right.end());
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

}  // namespace

absl::Status Sample::Add(const client::Matrix& request, const client::ForwardResult& answer,
                         size_t limit) {
  const client::Matrix& made = answer.output;
  if (made.rows() != request.rows() || made.cols() != request.cols()) {
    return absl::FailedPreconditionError(absl::StrCat("the answer is [", made.rows(), ", ",
                                                      made.cols(), "], the request [",
                                                      request.rows(), ", ", request.cols(), "]"));
  }
  const size_t k = answer.routing.experts_per_token;
  const size_t taken = std::min(limit, request.rows());
  const auto append = [taken, &request](const client::Matrix& from, std::vector<float>* to) {
    const std::vector<float> all = from.ToFloats();
    to->insert(to->end(), all.begin(),
               all.begin() + static_cast<std::ptrdiff_t>(taken * request.cols()));
  };
  append(request, &hidden);
  append(made, &output);
  expert_ids.insert(expert_ids.end(), answer.routing.expert_ids.begin(),
                    answer.routing.expert_ids.begin() + static_cast<std::ptrdiff_t>(taken * k));
  tokens += taken;
  return absl::OkStatus();
}

Agreement Compare(const Sample& sample, const ReferenceOutput& reference) {
  Agreement agreement;
  if (sample.tokens == 0) {
    return agreement;
  }
  const size_t d_model = sample.hidden.size() / sample.tokens;
  const size_t k = reference.expert_ids.size() / sample.tokens;
  const bool routed = sample.expert_ids.size() == reference.expert_ids.size();
  const absl::Span<const float> output = sample.output;
  const absl::Span<const float> expected = reference.output;
  const absl::Span<const uint32_t> ids = sample.expert_ids;
  const absl::Span<const uint32_t> expected_ids = reference.expert_ids;
  for (size_t token = 0; token < sample.tokens; ++token) {
    if (!routed || !SameExperts(ids.subspan(token * k, k), expected_ids.subspan(token * k, k))) {
      if (routed && reference.margins[token] <= kTie) {
        ++agreement.ties;
        continue;
      }
      ++agreement.other_experts;
    } else {
      ++agreement.same_experts;
    }
    agreement.worst_error =
        std::max(agreement.worst_error, RelativeError(output.subspan(token * d_model, d_model),
                                                      expected.subspan(token * d_model, d_model)));
  }
  return agreement;
}

absl::StatusOr<Agreement> CompareWithReference(const MoeCheckpoint& checkpoint, uint32_t layer,
                                               const Sample& sample) {
  ASSIGN_OR_RETURN(const ReferenceOutput reference,
                   ReferenceForward(checkpoint, layer, sample.hidden, sample.tokens));
  return Compare(sample, reference);
}

OptionSpec ToleranceOption() {
  return {.name = "tolerance",
          .kind = OptionKind::kNumber,
          .value = "X",
          .help =
              "largest relative error of a token; by default 1e-5 when activations in the mesh "
              "are F32, otherwise 1e-2"};
}

double Tolerance(const Options& options, client::DType activation_dtype) {
  if (options.Has("tolerance")) {
    return options.Number("tolerance");
  }
  return activation_dtype == client::DType::kFloat32 ? 1e-5 : 1e-2;
}

}  // namespace expertmesh
