#include "common/base/usage.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/process.h"
#include "common/base/version.h"

namespace expertmesh {
namespace {

constexpr size_t kLineWidth = 100;
constexpr size_t kIndent = 6;
// Letters that may be wrong in a flag for which another is proposed.
constexpr size_t kMostWrong = 2;

// What Abseil knows as compute_dtype is written --compute-dtype.
std::string Written(absl::string_view name) { return absl::StrReplaceAll(name, {{"_", "-"}}); }

// Those of main.cc and of what it has its flags from, or all; by name.
std::map<std::string, const absl::CommandLineFlag*> Flags(bool all) {
  std::map<std::string, const absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    const std::string file = flag->Filename();
    if (!flag->IsRetired() &&
        (all || absl::EndsWith(file, "main.cc") || absl::EndsWith(file, "_flags.cc"))) {
      flags[Written(name)] = flag;
    }
  }
  return flags;
}

void AppendFlag(const std::string& name, const absl::CommandLineFlag& flag, std::string* text) {
  const std::string fallback = flag.DefaultValue();
  absl::StrAppend(text, "  --", name, fallback.empty() ? "" : " (default: ", fallback,
                  fallback.empty() ? "\n" : ")\n");
  std::string line;
  for (const absl::string_view word : absl::StrSplit(flag.Help(), ' ', absl::SkipEmpty())) {
    if (!line.empty() && kIndent + line.size() + 1 + word.size() > kLineWidth) {
      absl::StrAppend(text, std::string(kIndent, ' '), line, "\n");
      line.clear();
    }
    absl::StrAppend(&line, line.empty() ? "" : " ", word);
  }
  if (!line.empty()) {
    absl::StrAppend(text, std::string(kIndent, ' '), line, "\n");
  }
}

std::string Help(absl::string_view usage, bool all, absl::string_view containing) {
  std::string text = absl::StrCat(usage, "\n\n");
  bool some = false;
  for (const auto& [name, flag] : Flags(all)) {
    if (containing.empty() || absl::StrContains(name, absl::AsciiStrToLower(Written(containing))) ||
        absl::StrContains(absl::AsciiStrToLower(flag->Help()), absl::AsciiStrToLower(containing))) {
      AppendFlag(name, *flag, &text);
      some = true;
    }
  }
  if (!some) {
    absl::StrAppend(&text, "No flag has '", containing, "' in its name or description.\n");
  }
  absl::StrAppend(&text,
                  "\n--help=TEXT lists the flags that have TEXT in name or description, --helpfull "
                  "all, also those\nthat read flags from files.\n");
  return text;
}

// How many letters differ (Levenshtein).
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// The flag that was meant; empty when none is close.
std::string MeantBy(const std::string& name) {
  std::string closest;
  size_t least = kMostWrong + 1;
  for (const auto& [known, flag] : Flags(/*all=*/true)) {
    const bool begins = name.size() >= 3 && absl::StartsWith(known, name);
    if (const size_t distance = begins ? kMostWrong : Distance(name, known); distance < least) {
      least = distance;
      closest = known;
    }
  }
  return closest;
}

const absl::CommandLineFlag* FindFlag(absl::string_view name) {
  return absl::FindCommandLineFlag(absl::StrReplaceAll(name, {{"-", "_"}}));
}

}  // namespace

std::optional<std::string> HelpAskedFor(absl::string_view usage,
                                        const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") {
      break;
    }
    if (argument == "--help" || argument == "-help" || argument == "-h" ||
        argument == "--helpshort") {
      return Help(usage, /*all=*/false, "");
    }
    if (argument == "--version") {
      return VersionLine();
    }
    if (argument == "--helpfull") {
      return Help(usage, /*all=*/true, "");
    }
    if (absl::StartsWith(argument, "--help=")) {
      return Help(usage, /*all=*/true, argument.substr(argument.find('=') + 1));
    }
  }
  return std::nullopt;
}

std::string UnknownFlag(const std::vector<std::string>& arguments) {
  bool is_value = false;  // The argument belongs to the flag before it.
  for (const std::string& argument : arguments) {
    if (argument == "--") {
      break;
    }
    if (std::exchange(is_value, false) || !absl::StartsWith(argument, "--")) {
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name =
        Written(argument.substr(2, equals == std::string::npos ? std::string::npos : equals - 2));
    const absl::CommandLineFlag* flag = FindFlag(name);
    const absl::CommandLineFlag* negated =
        absl::StartsWith(name, "no") ? FindFlag(name.substr(2)) : nullptr;
    if (flag == nullptr && (negated == nullptr || !negated->IsOfType<bool>())) {
      const std::string meant = MeantBy(name);
      return absl::StrCat("there is no flag --", name,
                          meant.empty() ? "" : absl::StrCat("; did you mean --", meant, "?"),
                          meant.empty() ? "; --help lists all" : " --help lists all");
    }
    is_value = flag != nullptr && !flag->IsOfType<bool>() && equals == std::string::npos;
  }
  return "";
}

std::vector<char*> ParseFlags(absl::string_view usage, int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const std::string path = argc > 0 ? argv[0] : "";
  const std::string program = path.substr(path.rfind('/') + 1);
  if (const std::optional<std::string> help =
          HelpAskedFor(absl::StrCat(program, ": ", usage), arguments)) {
    std::fputs(help->c_str(), stdout);
    std::exit(0);
  }
  if (const std::string unknown = UnknownFlag(arguments); !unknown.empty()) {
    std::fprintf(stderr, "%s: %s\n", program.c_str(), unknown.c_str());
    std::exit(1);
  }
  AcceptHyphens(argc, argv);
  return absl::ParseCommandLine(argc, argv);
}

}  // namespace expertmesh
