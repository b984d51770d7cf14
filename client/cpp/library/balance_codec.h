// The client's types of balancing, and the contract's.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_BALANCE_CODEC_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_BALANCE_CODEC_H_

#include "client/cpp/expertmesh/control.h"
#include "expertmesh/v1/balance.pb.h"

namespace expertmesh::client {

BalanceSummary ReadSummary(const v1::BalanceSummary& proto);
Balance ReadBalance(const v1::Balance& proto);
Bias ReadBias(const v1::Bias& proto);

v1::SetBalanceRequest ToProto(const BalanceChange& change);
v1::Bias ToProto(const Bias& bias);

// Ages grow while nothing happens.
void ClearAges(v1::BalanceSummary* summary);
void ClearAges(v1::Balance* balance);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_BALANCE_CODEC_H_
