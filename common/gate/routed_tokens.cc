#include "common/gate/routed_tokens.h"

#include <numeric>

#include "absl/strings/str_cat.h"

namespace expertmesh::gate {

absl::Status CheckRequestTokens(const RoutingOptions& options, const RequestTokens& request) {
  const uint64_t grouped =
      std::accumulate(request.group_sizes.begin(), request.group_sizes.end(), uint64_t{0});
  if (!request.group_sizes.empty() && grouped != request.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("group_sizes add up to ", grouped,
                                                   "; they must add up to the ", request.tokens,
                                                   " tokens of hidden_states, or be left out"));
  }
  if (!request.token_ids.empty() && request.token_ids.size() != request.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("token_ids has ", request.token_ids.size(),
                                                   " entries; hidden_states has ", request.tokens,
                                                   " tokens, send one id for each"));
  }
  if (options.choice == Choice::kHash && request.token_ids.empty() && request.tokens > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "token_ids is empty; this layer is routed by hash, send one id for each of the ",
        request.tokens, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::gate
