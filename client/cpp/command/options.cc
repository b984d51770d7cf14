#include "client/cpp/command/options.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// More than any model has.
constexpr uint32_t kMaxLayers = 65536;

bool ReadDuration(const std::string& text, absl::Duration* duration) {
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    *duration = absl::Seconds(seconds);
    return std::isfinite(seconds) && seconds >= 0;
  }
  return absl::ParseDuration(text, duration) && *duration >= absl::ZeroDuration();
}

// What a value must be, or "" when `value` is that.
std::string Expected(const OptionSpec& option, const std::string& value) {
  uint64_t whole = 0;
  double number = 0;
  absl::Duration duration;
  switch (option.kind) {
    case OptionKind::kSwitch:
      return "";
    case OptionKind::kText:
      return value.empty() ? "not empty" : "";
    case OptionKind::kWhole:
      return absl::SimpleAtoi(value, &whole) && whole >= option.min
                 ? ""
                 : absl::StrCat("a whole number from ", option.min);
    case OptionKind::kNumber:
      return absl::SimpleAtod(value, &number) && std::isfinite(number) && number >= 0
                 ? ""
                 : "a number from 0";
    case OptionKind::kDuration:
      return ReadDuration(value, &duration) ? "" : "a time such as 1.5 (seconds) or 200ms";
    case OptionKind::kLayers:
      return ParseRanges(value, kMaxLayers).ok()
                 ? ""
                 : absl::StrCat("a list such as 0-3,7 of numbers below ", kMaxLayers);
    case OptionKind::kChoice:
      return std::find(option.choices.begin(), option.choices.end(), value) != option.choices.end()
                 ? ""
                 : absl::StrCat("one of ", absl::StrJoin(option.choices, ", "));
  }
  return "";
}

const OptionSpec* Find(const CommandSpec& spec, absl::string_view name) {
  for (const OptionSpec& option : spec.options) {
    if (option.name == name) {
      return &option;
    }
  }
  return nullptr;
}

// "--name VALUE"
std::string Heading(const OptionSpec& option) {
  return option.kind == OptionKind::kSwitch ? absl::StrCat("--", option.name)
                                            : absl::StrCat("--", option.name, " ", option.value);
}

bool AsksForHelp(absl::Span<const std::string> arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") {
      return false;
    }
    if (argument == "--help" || argument == "-h") {
      return true;
    }
  }
  return false;
}

}  // namespace

OptionSpec CountOption(const std::string& name, const std::string& help,
                       const std::string& fallback, uint64_t min) {
  return {.name = name,
          .kind = OptionKind::kWhole,
          .value = "N",
          .help = help,
          .fallback = fallback,
          .min = min};
}

uint64_t Options::Whole(const std::string& name) const {
  uint64_t whole = 0;
  EXPERTMESH_CHECK(absl::SimpleAtoi(Text(name), &whole));
  return whole;
}

double Options::Number(const std::string& name) const {
  double number = 0;
  EXPERTMESH_CHECK(absl::SimpleAtod(Text(name), &number));
  return number;
}

absl::Duration Options::Duration(const std::string& name) const {
  absl::Duration duration;
  EXPERTMESH_CHECK(ReadDuration(Text(name), &duration));
  return duration;
}

std::vector<uint32_t> Options::Layers(const std::string& name) const {
  return Has(name) ? ParseRanges(Text(name), kMaxLayers).value() : std::vector<uint32_t>();
}

absl::StatusOr<Options> ParseOptions(const CommandSpec& spec,
                                     absl::Span<const std::string> arguments) {
  Options parsed;
  if (AsksForHelp(arguments)) {
    parsed.help_ = true;
    return parsed;
  }
  bool options_over = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view text = arguments[i];
    if (!options_over && text == "--") {
      options_over = true;
      continue;
    }
    if (options_over || !absl::StartsWith(text, "-")) {
      if (spec.argument.empty() || !parsed.argument_.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", text, "'"));
      }
      parsed.argument_ = std::string(text);
      continue;
    }
    const size_t equals = text.find('=');
    const absl::string_view written = text.substr(0, equals);
    const OptionSpec* option =
        absl::ConsumePrefix(&text, "--") ? Find(spec, written.substr(2)) : nullptr;
    if (option == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("unknown option ", written));
    }
    std::string value;
    if (option->kind == OptionKind::kSwitch) {
      if (equals != absl::string_view::npos) {
        return absl::InvalidArgumentError(absl::StrCat(written, " takes no value"));
      }
    } else if (equals != absl::string_view::npos) {
      value = arguments[i].substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat(written, " needs a value, ", option->value));
    }
    if (const std::string expected = Expected(*option, value); !expected.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(written, " is '", value, "'; it must be ", expected));
    }
    parsed.values_[option->name] = std::move(value);
  }
  for (const OptionSpec& option : spec.options) {
    if (option.required && !parsed.Has(option.name)) {
      return absl::InvalidArgumentError(absl::StrCat(Heading(option), " is missing"));
    }
    if (!option.fallback.empty()) {
      parsed.values_.try_emplace(option.name, option.fallback);
    }
  }
  if (!spec.argument.empty() && parsed.argument_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(spec.argument, " is missing"));
  }
  return parsed;
}

std::string Usage(const CommandSpec& spec) {
  std::string usage = absl::StrCat("usage: expertmesh ", spec.name);
  for (const OptionSpec& option : spec.options) {
    if (option.required) {
      absl::StrAppend(&usage, " ", Heading(option));
    }
  }
  if (!spec.argument.empty()) {
    absl::StrAppend(&usage, " ", spec.argument);
  }
  absl::StrAppend(&usage, " [option]...\n\n", spec.summary, "\n\n");
  size_t width = 0;
  for (const OptionSpec& option : spec.options) {
    width = std::max(width, Heading(option).size());
  }
  for (const OptionSpec& option : spec.options) {
    const std::string heading = Heading(option);
    absl::StrAppend(&usage, "  ", heading, std::string(width - heading.size() + 2, ' '),
                    option.help);
    if (!option.choices.empty()) {
      absl::StrAppend(&usage, ": ", absl::StrJoin(option.choices, ", "));
    }
    if (!option.fallback.empty()) {
      absl::StrAppend(&usage, " (default ", option.fallback, ")");
    }
    absl::StrAppend(&usage, "\n");
  }
  return usage;
}

}  // namespace expertmesh::command
