// Command lines from a table: each command lists its options, and parsing, checking and --help
// follow from the list.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_OPTIONS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_OPTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace expertmesh::command {

enum class OptionKind {
  kSwitch,    // No value.
  kText,      // Not empty.
  kWhole,     // A whole number from 0.
  kNumber,    // A finite number from 0.
  kDuration,  // "1.5" (seconds), or with a unit: "200ms", "1m".
  kLayers,    // "0-3,7".
  kChoice,    // One of OptionSpec::choices.
};

struct OptionSpec {
  std::string name{};  // Without the hyphens.
  OptionKind kind = OptionKind::kText;
  // What --help calls the value, for example "ADDR".
  std::string value{};
  std::string help{};
  // As a user would write it; empty: none.
  std::string fallback{};
  bool required = false;
  std::vector<std::string> choices{};
  uint64_t min = 0;  // kWhole.
};

// --NAME N, a whole number from `min`.
OptionSpec CountOption(const std::string& name, const std::string& help,
                       const std::string& fallback, uint64_t min = 1);

struct CommandSpec {
  std::string name;  // "checkpoint make"
  std::string summary;
  // What --help calls the one argument that is no option; empty: there is none.
  std::string argument;
  std::vector<OptionSpec> options;
};

// Values of a command line that has been checked against its CommandSpec. Getters are for options
// of the right kind that are given or have a fallback.
class Options {
 public:
  // Given, or has a fallback.
  bool Has(const std::string& name) const { return values_.contains(name); }
  const std::string& Text(const std::string& name) const { return values_.at(name); }
  uint64_t Whole(const std::string& name) const;
  double Number(const std::string& name) const;
  absl::Duration Duration(const std::string& name) const;
  // Ascending, each once; empty when not given.
  std::vector<uint32_t> Layers(const std::string& name) const;
  const std::string& argument() const { return argument_; }
  bool help() const { return help_; }

 private:
  friend absl::StatusOr<Options> ParseOptions(const CommandSpec& spec,
                                              absl::Span<const std::string> arguments);
  std::map<std::string, std::string> values_;
  std::string argument_;
  bool help_ = false;
};

// Takes "--name value", "--name=value", "--switch", "--" and the argument, in any order.
// INVALID_ARGUMENT names what is wrong. With --help nothing else is checked.
absl::StatusOr<Options> ParseOptions(const CommandSpec& spec,
                                     absl::Span<const std::string> arguments);

// Text for --help.
std::string Usage(const CommandSpec& spec);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_OPTIONS_H_
