// What commands say of balancing.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_BALANCE_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_BALANCE_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cpp/command/options.h"
#include "client/cpp/expertmesh/control.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::command {

// --json of those that show balance or placement.
OptionSpec BalanceJsonOption();

// One line: who decides, whether that is alive, and since when nothing changed.
std::string DescribeSummary(const client::BalanceSummary& summary);
nlohmann::json SummaryJson(const client::BalanceSummary& summary);

// To stdout: tables, with `measures` those of every layer as well, or with `json` one object in one
// line, which has all.
void PrintBalance(const client::Balance& balance, bool json, bool measures = false);

// A table of every measure, "-" for those of scores where no rows were sampled, and what collapsed.
std::string DescribeMeasures(const std::vector<client::LayerBalance>& layers);

// "1.5 s ago".
std::string Ago(absl::Duration age);
// In milliseconds; null: unset.
nlohmann::json Millis(const std::optional<absl::Duration>& age);

// "1.52%"; "-" when nothing was compared.
std::string DescribeChanged(uint64_t changed, uint64_t compared);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_BALANCE_REPORT_H_
