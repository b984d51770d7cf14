#include "common/json/json_text.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
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

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source) {
  try {
    nlohmann::json json = nlohmann::json::parse(text.begin(), text.end());
    DuplicateKeyFinder finder;
    nlohmann::json::sax_parse(text.begin(), text.end(), &finder);
    if (finder.duplicate().has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": key ", Quoted(*finder.duplicate()),
                                                     " appears twice in one object"));
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
