// Central management in the contract's messages.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_DESCRIBE_BALANCE_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_DESCRIBE_BALANCE_H_

#include <cstdint>
#include <map>

#include "expertmesh/v1/balance.pb.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/balance/bias_history.h"
#include "router_service/balance/bias_steering.h"
#include "router_service/balance/load_history.h"
#include "router_service/balance/steered_model.h"

namespace expertmesh::balance_control {

// `window`: what was counted of late; `measures`: what it does not tell, by layer.
void DescribeLayers(const SteeredModel& model, const BiasSteering& steering,
                    const LoadWindow& window, const std::map<uint32_t, v1::LayerMeasures>& measures,
                    v1::Balance* balance);

v1::Bias DescribeBias(const SteeredModel& model, uint64_t epoch, const LayerBiases& biases);

// `window`: zero for totals.
v1::GetLoadResponse DescribeLoad(const LoadCounts& counts, absl::Duration window, uint64_t epoch);

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_DESCRIBE_BALANCE_H_
