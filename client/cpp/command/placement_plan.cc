#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/placement_options.h"
#include "client/cpp/command/placement_report.h"
#include "client/cpp/command/plan_file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

std::string ToJson(const client::PlacementProposal& proposal) {
  nlohmann::json json = ProposalJson(proposal);
  json["plan"] = PlanJson(proposal.plan);
  json["moves"] = proposal.moves;
  return json.dump() + "\n";
}

absl::Status Run(const Options& options) {
  const std::string& router = options.Text("router");
  ASSIGN_OR_RETURN(const client::PlacementChange change, ReadPlanning(options));
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::PlacementProposal> proposal = mesh->PlanPlacement(change);
  if (!proposal.ok()) {
    return In(router, proposal.status());
  }
  if (options.Has("out")) {
    const absl::StatusOr<client::ModelInfo> model = mesh->DescribeModel();
    if (!model.ok()) {
      return In(router, model.status());
    }
    RETURN_IF_ERROR(WritePlan(options.Text("out"), model->outline, proposal->plan));
  }
  std::string text;
  if (options.Has("json")) {
    text = ToJson(*proposal);
  } else {
    text = DescribeProposal(*proposal, options.Whole("moves"));
    if (options.Has("out")) {
      absl::StrAppend(&text, options.Text("out"), ": the plan, for `placement apply --plan`\n");
    }
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

Command PlacementPlanCommand() {
  return {
      {"placement plan",
       "What the planner would do now, and why; nothing of it is done. What is not given is as the "
       "policy in force says.",
       "",
       WithRouter(WithPlanning(
           {CountOption("moves", "moves to show, in words", "10", 0),
            {.name = "out", .value = "FILE", .help = "file for the plan, for `placement apply`"},
            BalanceJsonOption()}))},
      &Run};
}

}  // namespace expertmesh::command
