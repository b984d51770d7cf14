#include <optional>
#include <string>

#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

client::BalanceRule RuleNamed(const std::string& name) {
  return name == "sign"           ? client::BalanceRule::kSign
         : name == "proportional" ? client::BalanceRule::kProportional
                                  : client::BalanceRule::kFrozen;
}

std::optional<float> Number(const Options& options, const std::string& name) {
  return options.Has(name) ? std::optional<float>(static_cast<float>(options.Number(name)))
                           : std::nullopt;
}

absl::StatusOr<client::BalanceChange> ReadChange(const Options& options) {
  client::BalanceChange change;
  change.layers = options.Layers("layers");
  if (options.Has("rule")) {
    change.rule = RuleNamed(options.Text("rule"));
  }
  change.rate = Number(options, "rate");
  change.clamp = Number(options, "clamp");
  change.decay = Number(options, "decay");
  change.quality_budget = Number(options, "quality-budget");
  if (options.Has("step-tokens")) {
    change.step_tokens = options.Whole("step-tokens");
  }
  if (options.Has("pause") && options.Has("resume")) {
    return absl::InvalidArgumentError("--pause and --resume are given; leave one out");
  }
  if (options.Has("pause") || options.Has("resume")) {
    change.paused = options.Has("pause");
  }
  change.reset_bias = options.Has("reset");
  if (!change.rule && !change.rate && !change.clamp && !change.decay && !change.quality_budget &&
      !change.step_tokens && !change.paused && !change.reset_bias) {
    return absl::InvalidArgumentError(
        "there is nothing to change; give --rule, --rate, --quality-budget or another one of "
        "--help");
  }
  return change;
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const client::BalanceChange change, ReadChange(options));
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::Balance> balance = mesh->SetBalance(change);
  if (!balance.ok()) {
    return In(options.Text("router"), balance.status());
  }
  PrintBalance(*balance, options.Has("json"));
  return absl::OkStatus();
}

OptionSpec NumberOption(const std::string& name, const std::string& help) {
  return {.name = name, .kind = OptionKind::kNumber, .value = "X", .help = help};
}

}  // namespace

Command BalanceSetCommand() {
  return {
      {"balance set",
       "Changes how the selection bias of some layers follows their load; what is not given stays.",
       "",
       WithRouter(
           {{.name = "layers",
             .kind = OptionKind::kLayers,
             .value = "LIST",
             .help = "layers such as 0-3,7; all that can be steered when not given"},
            {.name = "rule",
             .kind = OptionKind::kChoice,
             .value = "RULE",
             .help = "what a step adds to an expert's bias",
             .choices = {"frozen", "sign", "proportional"}},
            NumberOption("rate", "size of a step, in units of scores"),
            NumberOption("clamp", "largest distance of a bias to the checkpoint's"),
            NumberOption("decay", "share of that distance that each step takes back, 0 to 1"),
            NumberOption("quality-budget",
                         "share of tokens that may go to other experts than the checkpoint alone "
                         "would choose, 0 to 1; 1: no bound"),
            {.name = "step-tokens",
             .kind = OptionKind::kWhole,
             .value = "N",
             .help = "tokens that a step is made of, at least",
             .min = 1},
            {.name = "pause", .kind = OptionKind::kSwitch, .help = "no steps until --resume"},
            {.name = "resume", .kind = OptionKind::kSwitch, .help = "steps again"},
            {.name = "reset",
             .kind = OptionKind::kSwitch,
             .help = "begin again from the checkpoint's bias"},
            BalanceJsonOption()})},
      &Run};
}

}  // namespace expertmesh::command
