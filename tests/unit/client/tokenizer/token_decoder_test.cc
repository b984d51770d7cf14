#include "client/cpp/tokenizer/token_decoder.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/client/tokenizer/small_tokenizer.h"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using Strings = std::vector<std::string>;

// What each id shows as it comes, and what Finish shows.
Strings Shown(const Tokenizer& tokenizer, const std::vector<uint32_t>& ids,
              const DecodeOptions& options = {}) {
  const std::unique_ptr<TextStream> stream = tokenizer.NewStream(options);
  Strings shown;
  for (const uint32_t id : ids) {
    shown.push_back(stream->Push(id));
  }
  shown.push_back(stream->Finish());
  return shown;
}

// A tokenizer with these tokens, from 0 on, and this decoder.
std::unique_ptr<Tokenizer> WithDecoder(const Strings& tokens, const json& decoder) {
  json vocab = json::object();
  for (size_t i = 0; i < tokens.size(); ++i) {
    vocab[tokens[i]] = i;
  }
  json file = With(With(SmallTokenizer(), "/decoder", decoder), "/model/vocab", vocab);
  file["model"]["merges"] = json::array();
  file["added_tokens"] = json::array();
  return Parsed(file);
}

json Step(const std::string& type) { return {{"type", type}}; }
json Strip(const std::string& content, int start, int stop) {
  return {{"type", "Strip"}, {"content", content}, {"start", start}, {"stop", stop}};
}
json Sequence(const std::vector<json>& steps) {
  return {{"type", "Sequence"}, {"decoders", steps}};
}

TEST(TokenDecoder, ByteLevelShowsWholeCharacters) {
  const auto tokenizer =
      WithDecoder({"a", "ä", "¸", "Ń", "Ġb"}, {{"type", "ByteLevel"}, {"add_prefix_space", true}});
  EXPECT_EQ(Shown(*tokenizer, {0, 1, 2, 3, 4}), (Strings{"a", "", "", "中", " b", ""}));
  EXPECT_EQ(Shown(*tokenizer, {1, 2, 4}), (Strings{"", "", "� b", ""}));
  EXPECT_EQ(Shown(*tokenizer, {0, 1, 2}), (Strings{"a", "", "", "�"}));
  EXPECT_EQ(Shown(*tokenizer, {99, 0, 99}), (Strings{"", "a", "", ""}));
}

// What the reference decodes: each byte of a run that is not UTF-8 is replaced.
TEST(TokenDecoder, ByteFallback) {
  const auto tokenizer = WithDecoder({"a", "<0xE4>", "<0xB8>", "<0xAD>", "<0x41>"},
                                     Sequence({Step("ByteFallback"), Step("Fuse")}));
  EXPECT_EQ(Shown(*tokenizer, {0, 1, 2, 3, 0}), (Strings{"a", "", "", "中", "a", ""}));
  EXPECT_EQ(Shown(*tokenizer, {1, 2, 0}), (Strings{"", "", "��a", ""}));
  EXPECT_EQ(Shown(*tokenizer, {0, 1}), (Strings{"a", "", "�"}));
  EXPECT_EQ(tokenizer->Decode({1, 2, 0, 1}), "��a�");
  // Here a stream has shown the first character before the run turned out broken.
  EXPECT_EQ(Shown(*tokenizer, {4, 1, 4, 4, 0, 4}), (Strings{"A", "", "��", "�", "a", "A", ""}));
  EXPECT_EQ(tokenizer->Decode({4, 1, 4, 4, 0, 4}), "����aA");
}

TEST(TokenDecoder, StripsTheText) {
  const auto tokenizer =
      WithDecoder({" ", "a", "  b "}, Sequence({Step("Fuse"), Strip(" ", 2, 1)}));
  EXPECT_EQ(Shown(*tokenizer, {0, 0, 0, 1}), (Strings{"", "", "", " a", ""}));
  EXPECT_EQ(Shown(*tokenizer, {1, 0, 0, 1, 0}), (Strings{"a", "", " ", " a", "", ""}));
  EXPECT_EQ(Shown(*tokenizer, {2, 2}), (Strings{"b", "   b", ""}));
  EXPECT_EQ(tokenizer->Decode({0, 1, 0, 0}), "a ");
}

TEST(TokenDecoder, StripsEachToken) {
  const auto tokenizer = WithDecoder({" ", "a", "  b  "}, Strip(" ", 1, 1));
  EXPECT_EQ(tokenizer->Decode({1, 2, 1, 2}), "a b a b ");
  EXPECT_EQ(tokenizer->Decode({0}), "");
}

TEST(TokenDecoder, Metaspace) {
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}};
  EXPECT_EQ(WithDecoder({"▁a▁b", "▁"}, metaspace)->Decode({0, 1, 0}), "ab  a b");
  json never = metaspace;
  never["prepend_scheme"] = "never";
  EXPECT_EQ(WithDecoder({"▁a▁b", "▁"}, never)->Decode({0, 1, 0}), " a b  a b");
}

TEST(TokenDecoder, NoneAtAll) {
  const auto tokenizer = WithDecoder({"a", "b"}, nullptr);
  EXPECT_EQ(Shown(*tokenizer, {0, 1, 9, 0}), (Strings{"a", " b", "", " a", ""}));
}

TEST(TokenDecoder, SpecialTokens) {
  const auto tokenizer = Parsed(SmallTokenizer());
  EXPECT_EQ(tokenizer->Decode({7, 5, 7}), "<s>ab<s>");
  EXPECT_EQ(tokenizer->Decode({7, 5, 7}, {.skip_special_tokens = true}), "ab");
  EXPECT_EQ(Shown(*tokenizer, {7, 5, 7}, {.skip_special_tokens = true}),
            (Strings{"", "ab", "", ""}));
}

TEST(TokenDecoder, FinishBeginsAnew) {
  const auto tokenizer = WithDecoder({"▁a"}, {{"type", "Metaspace"}, {"replacement", "▁"}});
  const std::unique_ptr<TextStream> stream = tokenizer->NewStream();
  EXPECT_EQ(stream->Push(0), "a");
  EXPECT_EQ(stream->Push(0), " a");
  EXPECT_EQ(stream->Finish(), "");
  EXPECT_EQ(stream->Push(0), "a");
}

// An order that would have to wait for the end of the text.
TEST(TokenDecoder, RefusesOtherOrders) {
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "b"}};
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}};
  const json byte_level = Step("ByteLevel");
  const std::vector<std::vector<json>> sequences = {
      {Step("Fuse"), replace},
      {Step("Fuse"), metaspace},
      {Step("Fuse"), Step("ByteFallback")},
      {Step("Fuse"), byte_level},
      {Step("ByteFallback"), replace},
      {Step("ByteFallback"), Strip(" ", 1, 0)},
      {Step("ByteFallback"), Step("ByteFallback")},
      {Step("ByteFallback"), byte_level},
      {byte_level, byte_level},
      {byte_level, replace},
  };
  for (const auto& steps : sequences) {
    const auto tokenizer = Parse(With(SmallTokenizer(), "/decoder", Sequence(steps)));
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << json(steps).dump();
  }
}

}  // namespace
}  // namespace expertmesh::tokenizer
