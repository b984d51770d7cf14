// Whatever in a tokenizer.json would change the result is honoured or refused, by name.
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/tokenizer/small_tokenizer.h"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

void ExpectRefused(const json& file, const std::string& message) {
  const auto tokenizer = Parse(file);
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(message));
}

struct Change {
  std::string pointer;
  std::string value;  // JSON.
  std::string message;
};

void ExpectAllRefused(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    SCOPED_TRACE(change.pointer + " = " + change.value);
    ExpectRefused(With(SmallTokenizer(), change.pointer, json::parse(change.value)),
                  "t.json: " + change.message);
  }
}

TEST(TokenizerJson, TheSmallOneIsFine) { EXPECT_TRUE(Parse(SmallTokenizer()).ok()); }

TEST(TokenizerJson, File) {
  ExpectAllRefused({
      {"/version", R"("2.0")", R"(version is "2.0"; supported: 1.0)"},
      {"/future", "1", "future is 1, and what that asks for is unknown here"},
      {"/model", "null", "model is null; supported: an object"},
      {"/model", "3", "model is 3; supported: an object"},
      {"/added_tokens", "{}", "added_tokens is {}; supported: an array"},
  });
  const auto broken = ParseTokenizer("{", "t.json");
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("t.json: not valid JSON"));
  const auto list = ParseTokenizer("[]", "t.json");
  EXPECT_THAT(std::string(list.status().message()),
              HasSubstr("t.json: the content is []; supported: an object"));
}

TEST(TokenizerJson, Model) {
  ExpectAllRefused({
      {"/model/type", R"("Unigram")", R"(model.type is "Unigram"; supported: BPE)"},
      {"/model/dropout", "0.1", "model.dropout is 0.1; supported: null and 0"},
      {"/model/continuing_subword_prefix", R"("##")",
       R"(model.continuing_subword_prefix is "##"; supported: null and "")"},
      {"/model/end_of_word_suffix", R"("</w>")", "model.end_of_word_suffix is"},
      {"/model/unk_token", "3", "model.unk_token is 3; supported: a string"},
      {"/model/fuse_unk", "1", "model.fuse_unk is 1; supported: true and false"},
      {"/model/byte_fallback", R"("x")", "model.byte_fallback is"},
      {"/model/ignore_merges", R"("x")", "model.ignore_merges is"},
      {"/model/cache_capacity", "3", "model.cache_capacity is 3, and what"},
      {"/model/vocab", "[]", "model.vocab is []; supported: an object"},
      {"/model/vocab/a", "-1", "model.vocab: the id of 'a' is -1; supported: whole numbers"},
      {"/model/vocab/a", "16777216", "model.vocab: the id of 'a' is 16777216"},
      {"/model/vocab/a", "1", "model.vocab: 'b' has the id of another token, 1"},
      {"/model/merges", "null", "model.merges is null; supported: an array"},
      {"/model/merges/0", R"("a b c")", R"(model.merges[0] is "a b c"; supported: "a b" with)"},
      {"/model/merges/1", R"("ab")", R"(model.merges[1] is "ab")"},
      {"/model/merges/1", R"(["a"])", R"(model.merges[1] is ["a"])"},
      {"/model/merges/1", R"(["b", "a"])", "model.merges: merge 1 needs 'ba'"},
  });
  json untyped = SmallTokenizer();
  untyped["model"].erase("type");
  EXPECT_TRUE(Parse(untyped).ok());
  untyped["model"].erase("merges");
  ExpectRefused(untyped, "model.type is missing; supported: a string");
}

TEST(TokenizerJson, AddedTokens) {
  ExpectAllRefused({
      {"/added_tokens/0/id", "9", "added_tokens[0].id is 9; supported: 7, the id that '<s>' gets"},
      {"/added_tokens/0/content", R"("ab")",
       "added_tokens[0].id is 7; supported: 5, the id that 'ab' has in the vocab"},
      {"/added_tokens/0/content", R"("")", R"(added_tokens[0].content is "")"},
      {"/added_tokens/0/special", "null", "added_tokens[0].special is null"},
      {"/added_tokens/0/lstrip", "0", "added_tokens[0].lstrip is 0; supported: true and false"},
      {"/added_tokens/0/weight", "0", "added_tokens[0].weight is 0, and what"},
      {"/added_tokens/0", "3", "added_tokens[0] is 3; supported: an object"},
  });
  json twice = SmallTokenizer();
  twice["added_tokens"].push_back(twice["added_tokens"][0]);
  ExpectRefused(twice, R"(added_tokens[1].content is "<s>"; supported: each token once)");
  json missing = SmallTokenizer();
  missing["added_tokens"][0].erase("rstrip");
  ExpectRefused(missing, "added_tokens[0].rstrip is missing");
  json vanishes = With(SmallTokenizer(), "/added_tokens/0/normalized", true);
  vanishes["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "<s>"}}}, {"content", ""}};
  ExpectRefused(vanishes, "'<s>' is empty once normalized");
}

TEST(TokenizerJson, Normalizer) {
  ExpectAllRefused({
      {"/normalizer", R"({"type": "NFKC"})",
       R"(normalizer.type is "NFKC"; supported: NFC, Prepend, Replace, Sequence)"},
      {"/normalizer", R"({"type": "NFC", "x": 1})", "normalizer.x is 1, and what"},
      {"/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})",
       R"(normalizer.normalizers[0].type is "Lowercase")"},
      {"/normalizer", R"({"type": "Sequence"})", "normalizer.normalizers is missing"},
      {"/normalizer", R"({"type": "Prepend"})", "normalizer.prepend is missing"},
      {"/normalizer", R"({"type": "Replace", "content": "", "pattern": "x"})",
       R"(normalizer.pattern is "x"; supported: an object)"},
      {"/normalizer", R"({"type": "Replace", "content": "", "pattern": {"Regex": "[a"}})",
       R"(normalizer.pattern is {"Regex":"[a"}; supported: regular expressions that Oniguruma can )"
       "read, but here: premature end of char-class"},
      {"/normalizer", R"({"type": "Replace", "content": "", "pattern": {"Glob": "*"}})",
       R"(normalizer.pattern is {"Glob":"*"}; supported: {"String": ...} and {"Regex": ...})"},
      {"/normalizer", R"({"type": "Replace", "pattern": {"String": "x"}})",
       "normalizer.content is missing"},
  });
}

TEST(TokenizerJson, PreTokenizer) {
  const std::string split = R"({"type": "Split", "pattern": {"String": " "}, "invert": false)";
  ExpectAllRefused({
      {"/pre_tokenizer", R"({"type": "Whitespace"})",
       R"(pre_tokenizer.type is "Whitespace"; supported: ByteLevel, Split, Digits, Metaspace)"},
      {"/pre_tokenizer", R"({"type": "ByteLevel"})", "pre_tokenizer.add_prefix_space is missing"},
      {"/pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": true, "y": 0})",
       "pre_tokenizer.y is 0, and what"},
      {"/pre_tokenizer", R"({"type": "Digits"})", "pre_tokenizer.individual_digits is missing"},
      {"/pre_tokenizer", split + "}", "pre_tokenizer.behavior is missing"},
      {"/pre_tokenizer", split + R"(, "behavior": "Kept"})",
       R"(pre_tokenizer.behavior is "Kept"; supported: Removed, Isolated,)"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})",
       R"(pre_tokenizer.replacement is "__"; supported: a string of one character)"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})",
       R"(pre_tokenizer.prepend_scheme is "last"; supported: always, first, never)"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})",
       "pre_tokenizer.add_prefix_space is false; supported: true, or false with"},
      {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [
           {"type": "Digits", "individual_digits": true},
           {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}]})",
       R"(pre_tokenizer.pretokenizers[1].prepend_scheme is "first"; supported: first, where)"},
  });
}

TEST(TokenizerJson, PostProcessor) {
  const std::string text = R"({"Sequence": {"id": "A", "type_id": 0}})";
  ExpectAllRefused({
      {"/post_processor", R"({"type": "RobertaProcessing"})",
       R"(post_processor.type is "RobertaProcessing"; supported: ByteLevel, TemplateProcessing)"},
      {"/post_processor", R"({"type": "TemplateProcessing"})", "post_processor.single is missing"},
      {"/post_processor",
       R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]})",
       R"(post_processor.single[0].Sequence.id is "B"; supported: A)"},
      {"/post_processor", R"({"type": "TemplateProcessing", "single": [{}]})",
       "post_processor.single is [{}]; supported: a list of"},
      {"/post_processor",
       R"({"type": "TemplateProcessing", "special_tokens": {}, "single": [
           {"SpecialToken": {"id": "<s>"}}]})",
       "post_processor.special_tokens.<s> is missing"},
      {"/post_processor",
       R"({"type": "TemplateProcessing", "special_tokens": {"<s>": {"ids": [-7]}}, "single": [
           {"SpecialToken": {"id": "<s>"}}]})",
       "post_processor.special_tokens.<s>.ids is [-7]; supported: whole numbers"},
      {"/post_processor",
       R"({"type": "Sequence", "processors": [
           {"type": "TemplateProcessing", "single": [)" +
           text + R"(]}, {"type": "TemplateProcessing", "single": [)" + text + "]}]}",
       "post_processor.processors[1].type is \"TemplateProcessing\""},
  });
}

TEST(TokenizerJson, TokenDecoder) {
  ExpectAllRefused({
      {"/decoder", R"({"type": "WordPiece"})",
       R"(decoder.type is "WordPiece"; supported: Replace)"},
      {"/decoder", R"({"type": "Fuse", "z": 1})", "decoder.z is 1, and what"},
      {"/decoder", R"({"type": "Strip", "content": "ab", "start": 1, "stop": 0})",
       "decoder.content is \"ab\"; supported: a string of one character"},
      {"/decoder", R"({"type": "Strip", "content": "a", "start": -1, "stop": 0})",
       "decoder.start is -1; supported: a whole number from 0 to"},
      {"/decoder", R"({"type": "Sequence", "decoders": [{"type": "CTC"}]})",
       R"(decoder.decoders[0].type is "CTC")"},
      {"/decoder", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": 1})",
       "decoder.prepend_scheme is 1"},
  });
}

}  // namespace
}  // namespace expertmesh::tokenizer
