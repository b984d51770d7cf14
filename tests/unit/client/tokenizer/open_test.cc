// A model's folder, and the ids that end a text.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/tokenizer/small_tokenizer.h"

namespace expertmesh {
namespace {

using ::testing::HasSubstr;

class OpenTest : public ::testing::Test {
 protected:
  OpenTest()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("open_tokenizer_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~OpenTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }

  const std::filesystem::path folder_;
};

TEST_F(OpenTest, MissingFile) {
  const auto tokenizer = OpenTokenizer(folder_.string());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("save_pretrained"));
}

TEST_F(OpenTest, BrokenFileIsNamed) {
  Write("tokenizer.json", "{\"model\": 1}");
  const auto tokenizer = OpenTokenizer(folder_.string());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()),
              HasSubstr((folder_ / "tokenizer.json").string() + ": model must be"));
}

}  // namespace
}  // namespace expertmesh
