// A model's folder, and the ids that end a text.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/tokenizer/small_tokenizer.h"

namespace expertmesh::tokenizer {
namespace {

using ::testing::AllOf;
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
  EXPECT_THAT(
      std::string(tokenizer.status().message()),
      HasSubstr((folder_ / "tokenizer.json").string() + ": model is 1; supported: an object"));
}

// Begin and end where transformers 4.57.6 puts them for such folders.
TEST_F(OpenTest, ClassesThatTemplateTextsThemselves) {
  nlohmann::json tokenizer = SmallTokenizer();
  tokenizer["added_tokens"].push_back(tokenizer["added_tokens"][0]);
  tokenizer["added_tokens"][1].update({{"id", 8}, {"content", "</s>"}});
  Write("tokenizer.json", tokenizer.dump());
  const auto ids = [this](const std::string& config) {
    Write("tokenizer_config.json", config);
    const auto opened = OpenTokenizer(folder_.string());
    EXPECT_TRUE(opened.ok()) << opened.status();
    return (*opened)->Encode("abc").value();
  };
  using Ids = std::vector<uint32_t>;
  EXPECT_EQ(ids(R"({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true})"),
            (Ids{6}));
  EXPECT_EQ(ids(R"({"tokenizer_class": "LlamaTokenizerFast"})"), (Ids{7, 6}));
  EXPECT_EQ(ids(R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false})"), (Ids{6}));
  EXPECT_EQ(ids(R"({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": true,
                    "bos_token": {"content": "</s>"}, "eos_token": "<s>"})"),
            (Ids{8, 6, 7}));
  EXPECT_EQ(ids(R"({"tokenizer_class": "GPTNeoXTokenizerFast", "bos_token": "<s>"})"), (Ids{6}));
  EXPECT_EQ(ids(R"({"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": true,
                    "bos_token": "<s>"})"),
            (Ids{7, 6}));
  Write("tokenizer_config.json",
        R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<none>"})");
  const auto missing = OpenTokenizer(folder_.string());
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("tokenizer_config.json: bos_token is"), HasSubstr("<none>")));
  Write("tokenizer_config.json", "{");
  EXPECT_EQ(OpenTokenizer(folder_.string()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::tokenizer
