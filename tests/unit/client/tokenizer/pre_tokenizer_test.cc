#include "client/cpp/tokenizer/pre_tokenizer.h"

#include <fstream>
#include <string>
#include <vector>

#include "client/cpp/tokenizer/tokenizer_json.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using Strings = std::vector<std::string>;

PreTokenizer Read(const json& pre_tokenizer) {
  const json content = {{"pre_tokenizer", pre_tokenizer}};
  const JsonReader file = JsonReader::FromJson(content, "t.json").value();
  absl::StatusOr<PreTokenizer> read = ReadPreTokenizer(file);
  EXPECT_TRUE(read.ok()) << read.status();
  return *std::move(read);
}

Strings Cut(const PreTokenizer& pre_tokenizer, const std::string& text, bool at_start = true) {
  Pieces pieces;
  pieces.text = text;
  pieces.ranges = {{0, text.size()}};
  pieces.at_start = at_start;
  const absl::Status status = pre_tokenizer.Apply(&pieces);
  EXPECT_TRUE(status.ok()) << status;
  Strings cut;
  for (const ByteRange& range : pieces.ranges) {
    cut.emplace_back(range.Of(pieces.text));
  }
  return cut;
}

// What the reference answered: tests/golden/tokenizer/make.py.
TEST(PreTokenizer, CutsAsTheReference) {
  std::ifstream file(EXPERTMESH_SOURCE_DIR "/tests/golden/tokenizer/cuts.json");
  ASSERT_TRUE(file);
  const json cases = json::parse(file);
  ASSERT_GT(cases.size(), 50u);
  for (const json& one : cases) {
    SCOPED_TRACE(one.at("pre_tokenizer").dump());
    const PreTokenizer pre_tokenizer = Read(one.at("pre_tokenizer"));
    ASSERT_FALSE(one.at("pieces").empty());
    for (const auto& item : one.at("pieces").items()) {
      EXPECT_EQ(Cut(pre_tokenizer, item.key()), item.value().get<Strings>()) << item.key();
    }
  }
}

TEST(PreTokenizer, MetaspaceBeforeTheFirstOnly) {
  const PreTokenizer pre_tokenizer =
      Read({{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}});
  EXPECT_EQ(Cut(pre_tokenizer, "a b", true), (Strings{"▁a", "▁b"}));
  EXPECT_EQ(Cut(pre_tokenizer, "a b", false), (Strings{"a", "▁b"}));
}

TEST(PreTokenizer, NoneCutsNothing) {
  EXPECT_EQ(Cut(PreTokenizer(), "a b"), (Strings{"a b"}));
  EXPECT_FALSE(PreTokenizer().IsByteLevel());
}

}  // namespace
}  // namespace expertmesh::tokenizer
