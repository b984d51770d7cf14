#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/cpp/decoder/moe_layers.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/tensor/dtype.h"

namespace expertmesh::decoder {
namespace {

class MeshMoeLayers final : public MoeLayers {
 public:
  MeshMoeLayers(client::Client* client, client::Dtype dtype, absl::Duration timeout,
                bool return_routing)
      : client_(client), dtype_(dtype), timeout_(timeout), return_routing_(return_routing) {}

  absl::StatusOr<MoeResult> Compute(const MoeCall& call) override;

 private:
  client::Matrix Pack(const MoeCall& call) const;

  client::Client* const client_;
  const client::Dtype dtype_;
  const absl::Duration timeout_;
  const bool return_routing_;
  std::unique_ptr<client::ForwardStream> stream_;
};

client::Matrix MeshMoeLayers::Pack(const MoeCall& call) const {
  const size_t d_model = call.tokens == 0 ? 0 : call.hidden.size() / call.tokens;
  const Dtype dtype = client::ToInternal(dtype_);
  std::string bytes(call.hidden.size() * BytesOf(dtype), '\0');
  ConvertElements(Dtype::kF32, call.hidden.data(), dtype, bytes.data(), call.hidden.size());
  return client::Matrix::Take(dtype_, call.tokens, d_model, std::move(bytes));
}

absl::StatusOr<MoeResult> MeshMoeLayers::Compute(const MoeCall& call) {
  client::ForwardOptions options;
  options.timeout = timeout_;
  options.return_routing = return_routing_;
  options.output_dtype = client::Dtype::kFloat32;
  options.group_sizes.assign(call.group_sizes.begin(), call.group_sizes.end());
  options.token_ids.assign(call.token_ids.begin(), call.token_ids.end());
  // A stream that broke once is not used again.
  if (stream_ == nullptr || !stream_->status().ok()) {
    stream_ = client_->OpenStream();
  }
  absl::Notification answered;
  absl::StatusOr<client::ForwardResult> answer;
  stream_->Send(call.layer, Pack(call), options, [&](absl::StatusOr<client::ForwardResult> result) {
    answer = std::move(result);
    answered.Notify();
  });
  answered.WaitForNotification();
  if (!answer.ok()) {
    return WithContext(absl::StrCat("MoE layer ", call.layer), answer.status());
  }
  const client::Matrix& output = answer->output;
  if (output.rows() != call.tokens || output.rows() * output.cols() != call.hidden.size()) {
    return absl::InternalError(absl::StrCat("MoE layer ", call.layer, ": the answer is [",
                                            output.rows(), ", ", output.cols(), "] for ",
                                            call.tokens, " tokens"));
  }
  MoeResult result;
  result.output = output.ToFloats();
  result.expert_ids = std::move(answer->routing.expert_ids);
  result.timing = answer->timing;
  return result;
}

}  // namespace

std::unique_ptr<MoeLayers> MakeMeshMoeLayers(client::Client* client, client::Dtype dtype,
                                             absl::Duration timeout, bool return_routing) {
  return std::make_unique<MeshMoeLayers>(client, dtype, timeout, return_routing);
}

}  // namespace expertmesh::decoder
