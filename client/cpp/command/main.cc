// expertmesh: looks at a mesh, calls it, checks it, measures it, and makes checkpoints for it.
//
// Exit status: 0 when all is well, 1 when the command failed, 2 for a command line that makes no
// sense, 3 for a model of a kind that the command cannot work with.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "client/cpp/command/commands.h"
#include "common/base/process.h"
#include "common/base/version.h"
#include "common/net/grpc_logging.h"

namespace expertmesh::command {
namespace {

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// Lists the commands that have `containing` in what they say of themselves.
std::string Overview(const std::vector<Command>& commands, const std::string& containing = "") {
  std::string text = "usage: expertmesh COMMAND [option]...\n\n";
  for (const Command& command : commands) {
    if (!absl::StrContains(absl::AsciiStrToLower(Usage(command.spec)),
                           absl::AsciiStrToLower(containing))) {
      continue;
    }
    absl::StrAppend(&text, "  ", command.spec.name, std::string(20 - command.spec.name.size(), ' '),
                    FirstLine(command.spec.summary), "\n");
  }
  absl::StrAppend(&text, "\nexpertmesh COMMAND --help tells more.\n");
  return text;
}

// Takes the command's name, of one or two words, off `arguments`. Null when there is none such.
const Command* TakeCommand(const std::vector<Command>& commands,
                           absl::Span<const std::string>* arguments) {
  for (const Command& command : commands) {
    const std::vector<std::string> words = absl::StrSplit(command.spec.name, ' ');
    if (arguments->subspan(0, words.size()) == absl::MakeConstSpan(words)) {
      arguments->remove_prefix(words.size());
      return &command;
    }
  }
  return nullptr;
}

int Run(absl::Span<const std::string> arguments) {
  const std::vector<Command> commands = AllCommands();
  const Command* command = TakeCommand(commands, &arguments);
  if (command == nullptr) {
    const std::string overview = Overview(commands);
    if (arguments.size() == 1 && arguments[0] == "--version") {
      std::fputs(VersionLine().c_str(), stdout);
      return 0;
    }
    const std::string last = arguments.empty() ? "" : arguments.back();
    if (last == "--help" || last == "-h" || last == "--helpfull") {
      std::fputs(overview.c_str(), stdout);
      return 0;
    }
    if (absl::StartsWith(last, "--help=")) {
      std::fputs(Overview(commands, last.substr(last.find('=') + 1)).c_str(), stdout);
      return 0;
    }
    if (!arguments.empty()) {
      const bool is_option = absl::StartsWith(arguments[0], "-");
      std::fprintf(stderr, "expertmesh: %s '%s'\n\n",
                   is_option ? "options follow the name of a command, and none is before"
                             : "unknown command",
                   arguments[0].c_str());
    }
    std::fputs(overview.c_str(), stderr);
    return 2;
  }
  const absl::StatusOr<Options> options = ParseOptions(command->spec, arguments);
  if (!options.ok()) {
    std::fprintf(stderr, "expertmesh %s: %s\n\n%s", command->spec.name.c_str(),
                 std::string(options.status().message()).c_str(), Usage(command->spec).c_str());
    return 2;
  }
  if (options->help()) {
    std::fputs(Usage(command->spec).c_str(), stdout);
    return 0;
  }
  const absl::Status status = command->run(*options);
  // Flushed first, so that the user sees the output before the error.
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!status.ok()) {
    std::fprintf(stderr, "expertmesh %s: %s\n", command->spec.name.c_str(),
                 std::string(status.message()).c_str());
    return absl::IsUnimplemented(status) ? 3 : 1;
  }
  if (!written) {
    std::fprintf(stderr, "expertmesh %s: standard output cannot be written\n",
                 command->spec.name.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace expertmesh::command

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  expertmesh::net::RouteGrpcLogs();
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return expertmesh::command::Run(arguments);
}
