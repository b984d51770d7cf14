#include "client/cpp/tokenizer/tokenizer.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/support/growth.h"
#include "tests/unit/client/tokenizer/small_tokenizer.h"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

Ids Encoded(const Tokenizer& tokenizer, const std::string& text,
            const EncodeOptions& options = {}) {
  const absl::StatusOr<Ids> ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(Ids());
}

std::string Refusal(const Tokenizer& tokenizer, const std::string& text) {
  const absl::StatusOr<Ids> ids = tokenizer.Encode(text);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(ids.status().message());
}

TEST(Tokenizer, MergesAsTextOrAsPairs) {
  const auto pairs = Parsed(SmallTokenizer());
  const auto text =
      Parsed(With(SmallTokenizer(), "/model/merges", {"#version: 0.2", "a b", "ab c"}));
  for (const auto* tokenizer : {pairs.get(), text.get()}) {
    EXPECT_EQ(Encoded(*tokenizer, "abcab<s>a"), (Ids{6, 5, 7, 0}));
    EXPECT_EQ(Encoded(*tokenizer, ""), Ids());
  }
}

TEST(Tokenizer, VocabSizeAndIds) {
  const auto tokenizer =
      Parsed(With(With(SmallTokenizer(), "/model/vocab/x", 100), "/added_tokens/0/id", 8));
  EXPECT_EQ(tokenizer->vocab_size(), 101u);
  EXPECT_EQ(tokenizer->TokenId("x"), 100u);
  EXPECT_EQ(tokenizer->TokenId("y"), std::nullopt);
  EXPECT_EQ(tokenizer->Decode({100, 50, 5}), "xab");
}

TEST(Tokenizer, TemplateAroundTheText) {
  const auto tokenizer = Parsed(With(SmallTokenizer(), "/post_processor", json::parse(R"(
      {"type": "TemplateProcessing", "pair": [],
       "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A"}},
                  {"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A"}}],
       "special_tokens": {"x": {"id": "x", "ids": [7, 2], "tokens": ["<s>", "c"]}}})")));
  EXPECT_EQ(Encoded(*tokenizer, "ab"), (Ids{7, 2, 5, 7, 2, 5}));
  EXPECT_EQ(Encoded(*tokenizer, ""), (Ids{7, 2, 7, 2}));
  EXPECT_EQ(Encoded(*tokenizer, "ab", {.add_special_tokens = false}), (Ids{5}));
}

TEST(Tokenizer, NamesBytesWithoutToken) {
  const auto tokenizer = Parsed(SmallTokenizer());
  EXPECT_THAT(Refusal(*tokenizer, "abx"), HasSubstr("byte 0x78 at offset 2 of the text"));
  EXPECT_THAT(Refusal(*tokenizer, "é<s>é中"),
              HasSubstr("byte 0xE4 (of '\\xe4\\xb8\\xad') at offset 7"));
  const auto byte_level = Parsed(With(With(SmallTokenizer(), "/pre_tokenizer/type", "ByteLevel"),
                                      "/pre_tokenizer/add_prefix_space", false));
  EXPECT_THAT(Refusal(*byte_level, "abc<s>ab cab"), HasSubstr("byte 0x20 at offset 8 of the text"));
  // 0xC3 is a token of its own there, "Ã".
  EXPECT_THAT(Refusal(*byte_level, "aé"), HasSubstr("byte 0xC3 at offset 1 of the text"));
  const auto prepended = Parsed(
      With(With(SmallTokenizer(), "/normalizer/type", "Prepend"), "/normalizer/prepend", "z"));
  EXPECT_THAT(Refusal(*prepended, "ab<s>ab"),
              HasSubstr("byte 0x7A into which the text from offset 0 is made"));
}

TEST(Tokenizer, RefusesWhatIsNotUtf8) {
  const auto tokenizer = Parsed(SmallTokenizer());
  EXPECT_THAT(Refusal(*tokenizer, "ab\xFF"), HasSubstr("byte 0xFF at offset 2 of the text"));
  EXPECT_THAT(Refusal(*tokenizer, "é\xC3"), HasSubstr("byte 0xC3 at offset 2 of the text"));
}

// Whatever a pattern does, it ends.
TEST(Tokenizer, GivesUpOnRunawayPatterns) {
  const auto tokenizer = Parsed(With(SmallTokenizer(), "/normalizer", json::parse(R"(
      {"type": "Replace", "pattern": {"Regex": "(?:a|aa)+[bc]"}, "content": ""})")));
  EXPECT_EQ(tokenizer->Encode(std::string(1000, 'a')).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// Texts that offer no place to cut, or one everywhere, by the patterns of several families: 16
// times as long a text takes 16 times the time, and not 256 times.
TEST(Tokenizer, LongTextsTakeNoQuadraticTime) {
  for (const char* family : {"gpt2", "qwen", "deepseek_v2", "deepseek_v3", "o200k", "mixtral"}) {
    const auto tokenizer =
        OpenTokenizer(std::string(EXPERTMESH_SOURCE_DIR "/tests/golden/tokenizer/") + family);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const std::string part : {"a", " ", "a ", "\n", "中", "1", "'", "aA", "!", "\t\n"}) {
      const auto encode = [&](size_t bytes) {
        std::string text;
        while (text.size() < bytes) {
          text += part;
        }
        const Ids ids = Encoded(**tokenizer, text, {.add_special_tokens = false});
        EXPECT_TRUE(SameRows((*tokenizer)->Decode(ids), text, part.size()))
            << family << " " << part;
      };
      EXPECT_LT(GrowthOf(encode, 6'000, 16, 64), 64) << family << " " << part;
    }
  }
}

TEST(Tokenizer, ThreadsShareIt) {
  const auto tokenizer = OpenTokenizer(EXPERTMESH_SOURCE_DIR "/tests/golden/tokenizer/qwen");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string text = "Several threads encode: 123 中文 isn't it?\n<|im_end|>";
  const Ids expected = Encoded(**tokenizer, text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&tokenizer, &text, &expected]() {
      for (int round = 0; round < 20; ++round) {
        EXPECT_EQ(Encoded(**tokenizer, text), expected);
        EXPECT_EQ((*tokenizer)->Decode(expected), text);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(ByteTokenizer, IdsAreBytes) {
  const auto tokenizer = MakeByteTokenizer(300);
  EXPECT_EQ(Encoded(*tokenizer, "aé\xFF"), (Ids{0x61, 0xC3, 0xA9, 0xFF}));
  EXPECT_EQ(tokenizer->Decode({0x61, 0xC3, 0xA9, 299, 0xFF}), "aé�");
  EXPECT_EQ(tokenizer->vocab_size(), 300u);
  EXPECT_TRUE(tokenizer->IsSpecial(256));
  EXPECT_FALSE(tokenizer->IsSpecial(255));
  EXPECT_FALSE(tokenizer->IsSpecial(300));
  EXPECT_EQ(tokenizer->TokenId("\xFF"), 255u);
  EXPECT_EQ(tokenizer->TokenId("ab"), std::nullopt);
  const std::unique_ptr<TextStream> stream = tokenizer->NewStream();
  EXPECT_EQ(stream->Push(0xC3), "");
  EXPECT_EQ(stream->Push(256), "");
  EXPECT_EQ(stream->Push(0xA9), "é");
  EXPECT_EQ(stream->Push(0xC3), "");
  EXPECT_EQ(stream->Finish(), "�");
}

TEST(ByteTokenizer, RefusesBytesWithoutToken) {
  const auto tokenizer = MakeByteTokenizer(128);
  EXPECT_EQ(Encoded(*tokenizer, "a\x7F"), (Ids{0x61, 0x7F}));
  EXPECT_THAT(Refusal(*tokenizer, "abé"),
              HasSubstr("byte 0xC3 at offset 2 of the text has no token in a vocabulary of 128"));
  EXPECT_EQ(tokenizer->TokenId("\x80"), std::nullopt);
}

}  // namespace
}  // namespace expertmesh::tokenizer
