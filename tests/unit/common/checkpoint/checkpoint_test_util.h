// What several tests of checkpoints need.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_CHECKPOINT_TEST_UTIL_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_CHECKPOINT_TEST_UTIL_H_

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::checkpoint {

// A new folder, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = testing::TempDir() + "expertmesh_XXXXXX";
    EXPERTMESH_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(absl::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPERTMESH_CHECK(file.good());
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPERTMESH_CHECK(file.good());
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// A safetensors file with this header and `data_bytes` bytes of data (1, 2, 3, ...).
inline std::string SafetensorsBytes(absl::string_view header, size_t data_bytes) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>(header.size() >> (8 * i)));
  }
  file.append(header.data(), header.size());
  for (size_t i = 0; i < data_bytes; ++i) {
    file.push_back(static_cast<char>(i + 1));
  }
  return file;
}

// The status is `code`, and its message holds each of `parts`.
template <typename... Parts>
void ExpectError(const absl::Status& status, absl::StatusCode code, const Parts&... parts) {
  EXPECT_EQ(status.code(), code) << status;
  for (const std::string& part : {std::string(parts)...}) {
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(part));
  }
}

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_CHECKPOINT_TEST_UTIL_H_
