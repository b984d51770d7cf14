#include "common/trace/resource.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "common/base/environment.h"
#include "common/base/percent.h"
#include "common/trace/span_writer.h"

namespace expertmesh::trace {
namespace {

constexpr size_t kMostPairs = 64;
constexpr size_t kMostBytes = 1024;

// A key has one value, the last.
void Set(absl::string_view key, absl::string_view value, TextAttributes* attributes) {
  attributes->erase(std::remove_if(attributes->begin(), attributes->end(),
                                   [key](const auto& pair) { return pair.first == key; }),
                    attributes->end());
  attributes->emplace_back(std::string(key), std::string(value));
}

}  // namespace

TextAttributes ParseResourceAttributes(absl::string_view text) {
  TextAttributes attributes;
  for (const absl::string_view pair : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const size_t equals = pair.find('=');
    if (equals == absl::string_view::npos) {
      return {};
    }
    const std::optional<std::string> key =
        PercentDecoded(absl::StripAsciiWhitespace(pair.substr(0, equals)));
    const std::optional<std::string> value =
        PercentDecoded(absl::StripAsciiWhitespace(pair.substr(equals + 1)));
    if (!key.has_value() || key->empty() || !value.has_value() ||
        key->size() + value->size() > kMostBytes || attributes.size() == kMostPairs) {
      return {};
    }
    Set(*key, *value, &attributes);
  }
  return attributes;
}

TextAttributes ResourceAttributesFromEnvironment() {
  TextAttributes attributes =
      ParseResourceAttributes(EnvironmentVariable("OTEL_RESOURCE_ATTRIBUTES"));
  if (const std::string name = EnvironmentVariable("OTEL_SERVICE_NAME"); !name.empty()) {
    Set("service.name", name, &attributes);
  }
  return attributes;
}

void AddDefault(absl::string_view key, absl::string_view value, TextAttributes* attributes) {
  const auto is_key = [key](const auto& pair) { return pair.first == key; };
  if (!value.empty() && std::none_of(attributes->begin(), attributes->end(), is_key)) {
    attributes->emplace_back(std::string(key), std::string(value));
  }
}

Resource::Resource(const TextAttributes& attributes) {
  constexpr uint32_t kAttributes = 1;
  for (const auto& [key, value] : attributes) {
    AppendAttribute(kAttributes, key, absl::string_view(value), &bytes);
  }
}

}  // namespace expertmesh::trace
