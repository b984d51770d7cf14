#include "common/json/json_text.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace expertmesh {

std::string Quoted(absl::string_view name) {
  constexpr size_t kMaxLength = 200;
  const bool cut = name.size() > kMaxLength;
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kMaxLength)), cut ? "...'" : "'");
}

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source) {
  // nlohmann keeps the last of two equal keys; here both are refused.
  std::vector<absl::flat_hash_set<std::string>> keys;
  std::string duplicate;
  bool found_duplicate = false;
  const nlohmann::json::parser_callback_t watch = [&](int, nlohmann::json::parse_event_t event,
                                                      nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key && !found_duplicate) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        found_duplicate = true;
        duplicate = key;
      }
    }
    return true;
  };
  try {
    nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), watch);
    if (found_duplicate) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": key ", Quoted(duplicate), " appears twice in one object"));
    }
    return json;
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not valid JSON at byte ", error.byte));
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON: ", error.what()));
  }
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  std::string bytes;
  std::vector<char> chunk(64 * 1024);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || file.gcount() > 0) {
    bytes.append(chunk.data(), static_cast<size_t>(file.gcount()));
    if (bytes.size() > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": larger than the ", max_bytes, " bytes accepted here"));
    }
  }
  if (file.bad()) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  return bytes;
}

}  // namespace expertmesh
