// A model's folder, and the ids that end a text.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/cpp/tokenizer/small_tokenizer.h"

namespace expertmesh {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

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

  Ids EosIds() {
    const auto tokenizer = OpenTokenizer(folder_.string());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->eos_ids() : Ids();
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

TEST_F(OpenTest, EosIds) {
  Write("tokenizer.json", SmallTokenizer().dump());
  EXPECT_EQ(EosIds(), Ids());
  Write("tokenizer_config.json", R"({"eos_token": "<s>"})");
  EXPECT_EQ(EosIds(), (Ids{7}));
  Write("tokenizer_config.json", R"({"eos_token": {"content": "abc", "lstrip": false}})");
  EXPECT_EQ(EosIds(), (Ids{6}));
  Write("config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(EosIds(), (Ids{6}));
  Write("config.json", R"({"eos_token_id": 3})");
  EXPECT_EQ(EosIds(), (Ids{3}));
  Write("generation_config.json", R"({"eos_token_id": [4, 5]})");
  EXPECT_EQ(EosIds(), (Ids{4, 5}));
}

TEST_F(OpenTest, BrokenEosIds) {
  Write("tokenizer.json", SmallTokenizer().dump());
  const auto message = [this]() {
    const auto tokenizer = OpenTokenizer(folder_.string());
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(tokenizer.status().message());
  };
  Write("tokenizer_config.json", R"({"eos_token": "<none>"})");
  EXPECT_THAT(message(), HasSubstr("tokenizer_config.json: eos_token is \"<none>\""));
  Write("config.json", R"({"eos_token_id": [-1]})");
  EXPECT_THAT(message(), HasSubstr("config.json: eos_token_id is [-1]"));
  Write("generation_config.json", "{");
  EXPECT_THAT(message(), HasSubstr("generation_config.json: not valid JSON"));
}

}  // namespace
}  // namespace expertmesh
