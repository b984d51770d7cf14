#include "client/cpp/tokenizer/bpe.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/support/growth.h"

namespace expertmesh::tokenizer {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

Bpe Make(const std::vector<std::string>& tokens, const Merges& merges,
         const BpeOptions& options = {}) {
  Bpe::Vocabulary vocabulary;
  for (const std::string& token : tokens) {
    vocabulary.emplace(token, static_cast<uint32_t>(vocabulary.size()));
  }
  absl::StatusOr<Bpe> bpe = Bpe::Create(std::move(vocabulary), merges, options);
  EXPECT_TRUE(bpe.ok()) << bpe.status();
  return *std::move(bpe);
}

Ids Encode(const Bpe& bpe, const std::string& piece) {
  Ids ids;
  EXPECT_EQ(bpe.Encode(piece, &ids), std::nullopt) << piece;
  return ids;
}

TEST(Bpe, MergesByRankNotByPlace) {
  const Bpe bpe = Make({"a", "b", "c", "bc", "ab", "abc"}, {{"b", "c"}, {"a", "b"}, {"a", "bc"}});
  EXPECT_EQ(Encode(bpe, "abc"), (Ids{5}));
  EXPECT_EQ(Encode(bpe, "abab"), (Ids{4, 4}));
  EXPECT_EQ(Encode(bpe, "bcabcb"), (Ids{3, 5, 1}));
  EXPECT_EQ(Encode(bpe, "a"), (Ids{0}));
  EXPECT_EQ(Encode(bpe, ""), Ids());
}

TEST(Bpe, EqualRanksFromTheLeft) {
  const Bpe bpe = Make({"a", "aa", "aaa"}, {{"a", "a"}, {"aa", "a"}});
  EXPECT_EQ(Encode(bpe, "aaa"), (Ids{2}));
  EXPECT_EQ(Encode(bpe, "aaaaa"), (Ids{1, 2}));
}

// The later of two equal merges gives the rank.
TEST(Bpe, RepeatedMerge) {
  const Bpe bpe = Make({"a", "b", "c", "ab", "bc"}, {{"a", "b"}, {"b", "c"}, {"a", "b"}});
  EXPECT_EQ(Encode(bpe, "abc"), (Ids{0, 4}));
}

TEST(Bpe, UnknownCharacters) {
  const std::vector<std::string> tokens = {"<unk>", "a", "<0xC3>", "<0xA9>", "b", "ab"};
  const Merges merges = {{"a", "b"}};
  Ids ids;
  EXPECT_EQ(Make(tokens, merges).Encode("aéb", &ids), "é");
  EXPECT_EQ(ids, Ids());
  EXPECT_EQ(Encode(Make(tokens, merges, {.unk_token = "<unk>"}), "axyab"), (Ids{1, 0, 0, 5}));
  EXPECT_EQ(Encode(Make(tokens, merges, {.unk_token = "<unk>", .fuse_unk = true}), "axyzax"),
            (Ids{1, 0, 1, 0}));
  const Bpe bytes = Make(tokens, merges, {.unk_token = "<unk>", .byte_fallback = true});
  EXPECT_EQ(Encode(bytes, "aéab"), (Ids{1, 2, 3, 5}));
  // Bytes overtake an unknown character, as in the reference.
  EXPECT_EQ(Encode(bytes, "xéa"), (Ids{2, 3, 0, 1}));
  // One of its bytes has no token.
  EXPECT_EQ(Encode(bytes, "ê"), (Ids{0}));
  // An unk_token that is no token itself stands for nothing.
  ids.clear();
  EXPECT_EQ(Make(tokens, merges, {.unk_token = "<none>"}).Encode("x", &ids), "x");
}

TEST(Bpe, IgnoreMerges) {
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "abc"};
  EXPECT_EQ(Encode(Make(tokens, {{"a", "b"}}), "abc"), (Ids{3, 2}));
  const Bpe bpe = Make(tokens, {{"a", "b"}}, {.ignore_merges = true});
  EXPECT_EQ(Encode(bpe, "abc"), (Ids{4}));
  EXPECT_EQ(Encode(bpe, "abca"), (Ids{3, 2, 0}));
}

TEST(Bpe, MergesMustBeOfTokens) {
  const auto message = [](const Merges& merges) {
    Bpe::Vocabulary vocabulary = {{"a", 0}, {"b", 1}, {"ab", 2}};
    const absl::StatusOr<Bpe> bpe = Bpe::Create(std::move(vocabulary), merges, {});
    EXPECT_EQ(bpe.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(bpe.status().message());
  };
  EXPECT_THAT(message({{"a", "b"}, {"x", "b"}}), HasSubstr("merge 1 needs 'x'"));
  EXPECT_THAT(message({{"a", "x"}}), HasSubstr("merge 0 needs 'x'"));
  EXPECT_THAT(message({{"b", "a"}}), HasSubstr("merge 0 needs 'ba'"));
}

// A hundred thousand characters without a place to cut take no quadratic time: 16 times as long a
// text 16 times the time, and not 256 times.
TEST(Bpe, LongPieces) {
  std::vector<std::string> tokens = {"a"};
  Merges merges;
  for (int i = 0; i < 10; ++i) {
    merges.emplace_back(tokens.back(), tokens.back());
    tokens.push_back(tokens.back() + tokens.back());
  }
  const Bpe bpe = Make(tokens, merges);
  const auto encode = [&bpe](size_t size) {
    EXPECT_TRUE(SameRows(Encode(bpe, std::string(size, 'a')), Ids(size / 1024, 10), 1));
  };
  EXPECT_LT(GrowthOf(encode, 6 * 1024, 16, 64), 64);
}

}  // namespace
}  // namespace expertmesh::tokenizer
