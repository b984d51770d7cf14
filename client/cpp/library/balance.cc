// The methods of the contract's Control that are about balancing.
#include "client/cpp/library/balance_codec.h"
#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/watch.h"
#include "common/base/status_macros.h"
#include "expertmesh/v1/control.pb.h"

namespace expertmesh::client {

absl::StatusOr<Balance> Client::GetBalance() {
  ASSIGN_OR_RETURN(const auto response,
                   impl_->Ask<v1::GetBalanceResponse>("/expertmesh.v1.Control/GetBalance",
                                                      v1::GetBalanceRequest()));
  return ReadBalance(response.balance());
}

absl::Status Client::WatchBalance(const std::function<bool(const Balance&)>& on_change) {
  return Watch<v1::WatchBalanceResponse>(
      {&impl_->control, &impl_->retries}, "/expertmesh.v1.Control/WatchBalance",
      [](v1::WatchBalanceResponse* response) { ClearAges(response->mutable_balance()); },
      [&](const v1::WatchBalanceResponse& response) {
        return on_change(ReadBalance(response.balance()));
      });
}

absl::StatusOr<Balance> Client::SetBalance(const BalanceChange& change) {
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::SetBalanceResponse>(
                                            "/expertmesh.v1.Control/SetBalance", ToProto(change)));
  return ReadBalance(response.balance());
}

absl::StatusOr<Bias> Client::GetBias(uint64_t epoch) {
  v1::GetBiasRequest request;
  request.set_epoch(epoch);
  ASSIGN_OR_RETURN(const auto response,
                   impl_->Ask<v1::GetBiasResponse>("/expertmesh.v1.Control/GetBias", request));
  return ReadBias(response.bias());
}

absl::StatusOr<Balance> Client::SetBias(const Bias& bias) {
  v1::SetBiasRequest request;
  *request.mutable_bias() = ToProto(bias);
  ASSIGN_OR_RETURN(const auto response,
                   impl_->Ask<v1::SetBiasResponse>("/expertmesh.v1.Control/SetBias", request));
  return ReadBalance(response.balance());
}

}  // namespace expertmesh::client
