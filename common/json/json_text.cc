#include "common/json/json_text.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace expertmesh {

std::string Quoted(absl::string_view name) {
  constexpr size_t kMaxLength = 200;
  const bool cut = name.size() > kMaxLength;
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kMaxLength)), cut ? "...'" : "'");
}

namespace {

// Looks for a key that an object has twice, of which nlohmann would keep the last. A pass of its
// own, since nlohmann's parser takes time in the square of an object's members when it has a
// callback.
class DuplicateKeyFinder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::optional<std::string>& duplicate() const { return duplicate_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      duplicate_ = key;
    }
    return !duplicate_.has_value();
  }
  // What is no JSON is said by the parser.
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  std::vector<absl::flat_hash_set<std::string>> keys_;
  std::optional<std::string> duplicate_;
};

// A word of Python's json, and the string that stands for it while the text is parsed: one of the
// same length, so that an error names the right byte, of a character that no such text has.
struct Word {
  absl::string_view name;
  absl::string_view stand_in;
  double value;
};
constexpr Word kWords[] = {
    {"NaN", "\"\x7f\"", std::numeric_limits<double>::quiet_NaN()},
    {"Infinity", "\"\x7f\x7f\x7f\x7f\x7f\x7f\"", std::numeric_limits<double>::infinity()},
    {"-Infinity", "\"\x7f\x7f\x7f\x7f\x7f\x7f\x7f\"", -std::numeric_limits<double>::infinity()},
};
constexpr char kStandIn = '\x7f';

// False when there is no word outside strings, or a stand-in would be ambiguous.
bool ReplaceWords(absl::string_view text, std::string* replaced) {
  if (absl::StrContains(text, kStandIn)) {
    return false;
  }
  bool in_string = false;
  bool found = false;
  *replaced = std::string(text);
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      for (const Word& word : kWords) {
        if (absl::StartsWith(text.substr(i), word.name)) {
          replaced->replace(i, word.name.size(), std::string(word.stand_in));
          i += word.name.size() - 1;
          found = true;
          break;
        }
      }
    }
  }
  return found;
}

// False when a word is in the place of a key.
bool RestoreWords(nlohmann::json* json) {
  bool right = true;
  if (json->is_structured()) {
    for (const auto& item : json->items()) {
      right = right && !(json->is_object() && item.key().starts_with(kStandIn)) &&
              RestoreWords(&item.value());
    }
  } else if (json->is_string() && json->get_ref<const std::string&>().starts_with(kStandIn)) {
    for (const Word& word : kWords) {
      if (json->get_ref<const std::string&>().size() + 2 == word.stand_in.size()) {
        *json = word.value;
        break;
      }
    }
  }
  return right;
}

// A reader would wait for ever at a pipe.
absl::Status CheckRegularFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  return S_ISREG(info.st_mode)
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source,
                                         NonFinite non_finite) {
  std::string replaced;
  const bool has_words = non_finite == NonFinite::kAccept && ReplaceWords(text, &replaced);
  const absl::string_view parsed = has_words ? replaced : text;
  try {
    nlohmann::json json = nlohmann::json::parse(parsed.begin(), parsed.end());
    DuplicateKeyFinder finder;
    nlohmann::json::sax_parse(parsed.begin(), parsed.end(), &finder);
    if (finder.duplicate().has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": key ", Quoted(*finder.duplicate()),
                                                     " appears twice in one object"));
    }
    if (has_words && !RestoreWords(&json)) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON: NaN as a key"));
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
  if (absl::Status status = CheckRegularFile(path); !status.ok()) {
    return status;
  }
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
