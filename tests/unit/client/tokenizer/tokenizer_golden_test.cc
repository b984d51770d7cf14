// What the reference answered, case by case: tests/golden/tokenizer/make.py.
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "client/cpp/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/compare_rows.h"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using Ids = std::vector<uint32_t>;

const std::filesystem::path kFolder = EXPERTMESH_SOURCE_DIR "/tests/golden/tokenizer";

json ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return json::parse(file);
}

class TokenizerGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Tokenizer>> opened = OpenTokenizer(Folder().string());
    ASSERT_TRUE(opened.ok()) << opened.status();
    tokenizer_ = *std::move(opened);
  }

  std::filesystem::path Folder() const { return kFolder / GetParam(); }

  // Decoded all at once and as a stream.
  void ExpectDecoded(const Ids& ids, const std::string& expected, bool skip_special_tokens) {
    const DecodeOptions options{.skip_special_tokens = skip_special_tokens};
    EXPECT_EQ(tokenizer_->Decode(ids, options), expected) << json(ids).dump();
    const std::unique_ptr<TextStream> stream = tokenizer_->NewStream(options);
    for (int round = 0; round < 2; ++round) {
      std::string streamed;
      for (const uint32_t id : ids) {
        streamed += stream->Push(id);
      }
      streamed += stream->Finish();
      // A run of byte tokens that is not UTF-8 is the declared exception.
      if (!fallback_ || expected.find("\xEF\xBF\xBD") == std::string::npos) {
        EXPECT_EQ(streamed, expected) << json(ids).dump();
      }
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  const bool fallback_ =
      std::string(GetParam()) == "mixtral" || std::string(GetParam()) == "some_bytes";
};

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGoldenTest,
                         ::testing::Values("gpt2", "olmoe", "qwen", "deepseek_v2", "deepseek_v3",
                                           "llama3", "o200k", "mixtral", "metaspace_always",
                                           "metaspace_first", "no_decoder", "some_bytes", "splits",
                                           "odd"),
                         [](const auto& info) { return info.param; });

TEST_P(TokenizerGoldenTest, Encodes) {
  const json texts = ReadJson(kFolder / "texts.json");
  const json cases = ReadJson(Folder() / "encoded.json");
  ASSERT_EQ(texts.size(), cases.size());
  ASSERT_GT(texts.size(), 100u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string text = texts[i].get<std::string>();
    SCOPED_TRACE(texts[i].dump());
    const Ids expected = cases[i].at("ids").get<Ids>();
    const absl::StatusOr<Ids> ids = tokenizer_->Encode(text, {.add_special_tokens = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_TRUE(SameRows(*ids, expected, 1));
    if (cases[i].contains("whole_ids")) {
      const absl::StatusOr<Ids> whole = tokenizer_->Encode(text);
      ASSERT_TRUE(whole.ok()) << whole.status();
      EXPECT_TRUE(SameRows(*whole, cases[i].at("whole_ids").get<Ids>(), 1));
    }
    ExpectDecoded(expected, cases[i].value("decoded", text), /*skip_special_tokens=*/false);
  }
}

TEST_P(TokenizerGoldenTest, DecodesAnyIds) {
  const json cases = ReadJson(Folder() / "decoded.json");
  ASSERT_GE(cases.size(), 20u);
  for (const json& one : cases) {
    const Ids ids = one.at("ids").get<Ids>();
    const std::string decoded = one.at("decoded").get<std::string>();
    ExpectDecoded(ids, decoded, /*skip_special_tokens=*/false);
    ExpectDecoded(ids, one.value("without_specials", decoded), /*skip_special_tokens=*/true);
  }
}

TEST_P(TokenizerGoldenTest, KnowsItsTokens) {
  const json file = ReadJson(Folder() / "tokenizer.json");
  uint32_t size = 0;
  for (const auto& item : file.at("model").at("vocab").items()) {
    EXPECT_EQ(tokenizer_->TokenId(item.key()), item.value().get<uint32_t>());
    size = std::max(size, item.value().get<uint32_t>() + 1);
  }
  for (const json& token : file.at("added_tokens")) {
    const uint32_t id = token.at("id").get<uint32_t>();
    EXPECT_EQ(tokenizer_->TokenId(token.at("content").get<std::string>()), id);
    EXPECT_EQ(tokenizer_->IsSpecial(id), token.at("special").get<bool>());
    size = std::max(size, id + 1);
  }
  EXPECT_EQ(tokenizer_->vocab_size(), size);
  EXPECT_FALSE(tokenizer_->IsSpecial(size));
}

// Fails when a folder is missing in the list above.
TEST(TokenizerGolden, EveryFolderIsTested) {
  size_t folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    folders += entry.is_directory() && std::filesystem::exists(entry.path() / "tokenizer.json");
  }
  EXPECT_EQ(folders, 14u);
}

}  // namespace
}  // namespace expertmesh::tokenizer
