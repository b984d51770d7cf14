#include "common/checkpoint/safetensors_header.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;
using testing::ElementsAre;

absl::StatusOr<SafetensorsHeader> Parse(absl::string_view header, size_t data_bytes) {
  return ParseSafetensorsHeader(SafetensorsBytes(header, data_bytes), "f.safetensors");
}

TEST(SafetensorsHeader, ReadsTensorsAndMetadata) {
  const auto header = Parse(
      R"({"__metadata__": {"format": "pt"},
          "b": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
          "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
          "none": {"dtype": "F32", "shape": [0, 7], "data_offsets": [12, 12]}}   )",
      16);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.size(), 3u);
  const SafetensorsEntry& a = header->tensors.at("a");
  EXPECT_EQ(a.dtype, Dtype::kBF16);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.end - a.begin, 12u);
  EXPECT_EQ(header->tensors.at("b").begin, a.end);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, KnowsEveryType) {
  const struct {
    const char* name;
    int bytes;  // Size of 8 elements.
  } kTypes[] = {{"BOOL", 8},    {"U8", 8},      {"I8", 8},   {"U16", 16},    {"I16", 16},
                {"U32", 32},    {"I32", 32},    {"U64", 64}, {"I64", 64},    {"F8_E4M3", 8},
                {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
                {"F16", 16},    {"BF16", 16},   {"F32", 32}, {"F64", 64},    {"C64", 64}};
  for (const auto& type : kTypes) {
    const auto header = Parse(std::string(R"({"t": {"dtype": ")") + type.name +
                                  R"(", "shape": [2, 4], "data_offsets": [0, )" +
                                  std::to_string(type.bytes) + "]}}",
                              type.bytes);
    ASSERT_TRUE(header.ok()) << type.name << ": " << header.status();
    EXPECT_EQ(NameOf(header->tensors.at("t").dtype), type.name);
  }
}

TEST(SafetensorsHeader, AShapeOfManyDimensionsIsShownInPart) {
  EXPECT_EQ(ShapeString({2, 3}), "[2, 3]");
  EXPECT_EQ(ShapeString(std::vector<uint64_t>(1'000'000, 7)),
            "[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, ...: 1000000 dimensions]");
}

// In the square of the tensors this would take half an hour.
TEST(SafetensorsHeader, AFileMayHaveManyTensors) {
  constexpr int kTensors = 100'000;
  std::string text = "{";
  for (int i = 0; i < kTensors; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", "\"model.layers.0.mlp.experts.", i,
                    ".up_proj.weight\":{\"dtype\":\"U8\",\"shape\":[1,1],\"data_offsets\":[", i,
                    ",", i + 1, "]}");
  }
  const auto header = Parse(text + "}", kTensors);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.size(), size_t{kTensors});
}

TEST(SafetensorsHeader, RefusesFileTooShortForALength) {
  ExpectError(ParseSafetensorsHeader("abc", "f.safetensors").status(), StatusCode::kDataLoss,
              "f.safetensors", "truncated");
}

TEST(SafetensorsHeader, RefusesHeaderBeyondTheFile) {
  std::string file = SafetensorsBytes("{}", 0);
  file[0] = 3;
  ExpectError(ParseSafetensorsHeader(file, "f.safetensors").status(), StatusCode::kDataLoss,
              "f.safetensors", "header of 3 bytes", "only 2");
}

TEST(SafetensorsHeader, RefusesHeaderOverTheLimit) {
  std::string file = SafetensorsBytes("{}", 0);
  for (size_t i = 0; i < 8; ++i) {
    file[i] = static_cast<char>(0xff);
  }
  ExpectError(ParseSafetensorsHeader(file, "f.safetensors").status(), StatusCode::kDataLoss,
              "18446744073709551615", "100000000");
}

TEST(SafetensorsHeader, RefusesBadJson) {
  ExpectError(Parse(R"({"a": )", 0).status(), StatusCode::kDataLoss, "f.safetensors",
              "not valid JSON");
  ExpectError(Parse("[1, 2]", 0).status(), StatusCode::kDataLoss, "must be a JSON object");
  ExpectError(Parse("{\"a\xff\": 1}", 0).status(), StatusCode::kDataLoss, "not valid JSON");
  ExpectError(Parse(R"({"a": 1e999})", 0).status(), StatusCode::kDataLoss, "not valid JSON");
}

TEST(SafetensorsHeader, RefusesDeepNesting) {
  ExpectError(Parse(std::string(200000, '['), 0).status(), StatusCode::kDataLoss, "not valid JSON");
}

TEST(SafetensorsHeader, RefusesDuplicateNames) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                        "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})",
                    2)
                  .status(),
              StatusCode::kDataLoss, "'a'", "twice");
}

TEST(SafetensorsHeader, RefusesDuplicateKeysOfATensor) {
  ExpectError(
      Parse(R"({"a": {"dtype": "U8", "dtype": "I8", "shape": [1], "data_offsets": [0, 1]}})", 1)
          .status(),
      StatusCode::kDataLoss, "'dtype'", "twice");
}

TEST(SafetensorsHeader, RefusesBeginAfterEnd) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [2, 1]}})", 2).status(),
              StatusCode::kDataLoss, "f.safetensors", "'a'", "begin at 2, after their end 1");
}

TEST(SafetensorsHeader, RefusesOffsetsBeyondTheData) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}})", 8).status(),
              StatusCode::kDataLoss, "'a'", "end at 9", "only 8 bytes");
}

TEST(SafetensorsHeader, RefusesOverlap) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
                        "b": {"dtype": "U8", "shape": [3], "data_offsets": [2, 5]}})",
                    5)
                  .status(),
              StatusCode::kDataLoss, "'b'", "overlaps", "'a'");
}

TEST(SafetensorsHeader, RefusesHoles) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                        "b": {"dtype": "U8", "shape": [2], "data_offsets": [3, 5]}})",
                    5)
                  .status(),
              StatusCode::kDataLoss, "'b'", "hole of 1 bytes");
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}})", 3).status(),
              StatusCode::kDataLoss, "'a'", "hole of 1 bytes");
}

TEST(SafetensorsHeader, RefusesBytesThatBelongToNoTensor) {
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})", 5).status(),
              StatusCode::kDataLoss, "f.safetensors", "3 bytes after the last tensor");
}

TEST(SafetensorsHeader, RefusesByteCountOtherThanTheShape) {
  ExpectError(Parse(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 7]}})", 7).status(),
              StatusCode::kDataLoss, "'a'", "takes 8 bytes", "give 7");
}

TEST(SafetensorsHeader, RefusesShapesThatOverflow) {
  // 2^62 elements of 4 bytes are 0 modulo 2^64.
  ExpectError(Parse(R"({"a": {"dtype": "F32", "shape": [4611686018427387904],
                        "data_offsets": [0, 0]}})",
                    0)
                  .status(),
              StatusCode::kDataLoss, "'a'", "overflows");
  ExpectError(Parse(R"({"a": {"dtype": "U8", "shape": [0, 4294967296, 4294967296],
                        "data_offsets": [0, 0]}})",
                    0)
                  .status(),
              StatusCode::kDataLoss, "'a'", "overflows");
}

TEST(SafetensorsHeader, RefusesPartOfAByte) {
  ExpectError(Parse(R"({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}})", 2).status(),
              StatusCode::kDataLoss, "'a'", "no whole number of bytes");
}

TEST(SafetensorsHeader, RefusesUnknownType) {
  ExpectError(
      Parse(R"({"a": {"dtype": "F128", "shape": [1], "data_offsets": [0, 16]}})", 16).status(),
      StatusCode::kInvalidArgument, "f.safetensors", "'a'", "'F128'", "BF16");
}

TEST(SafetensorsHeader, RefusesMalformedEntries) {
  const char* const kBad[] = {
      R"({"a": 1})",
      R"({"a": {"shape": [1], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": 1, "shape": [1], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": ["1"], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": [99999999999999999999], "data_offsets": [0, 1]}})",
      R"({"a": {"dtype": "U8", "shape": [1]}})",
      R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}})",
      R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}})",
  };
  for (const char* header : kBad) {
    ExpectError(Parse(header, 1).status(), StatusCode::kDataLoss, "f.safetensors", "'a'");
  }
  ExpectError(Parse(R"({"__metadata__": {"x": 1}})", 0).status(), StatusCode::kDataLoss, "'x'");
  ExpectError(Parse(R"({"__metadata__": []})", 0).status(), StatusCode::kDataLoss, "__metadata__");
}

TEST(TensorBytes, CountsBits) {
  EXPECT_EQ(TensorBytes(Dtype::kF4, {2, 3}), 3u);
  EXPECT_EQ(TensorBytes(Dtype::kF6E2M3, {4}), 3u);
  EXPECT_EQ(TensorBytes(Dtype::kF32, {}), 4u);
  EXPECT_EQ(TensorBytes(Dtype::kF32, {5, 0}), 0u);
  EXPECT_EQ(TensorBytes(Dtype::kF4, {1}), std::nullopt);
  EXPECT_EQ(TensorBytes(Dtype::kU8, {std::numeric_limits<uint64_t>::max()}), std::nullopt);
}

}  // namespace
}  // namespace expertmesh::checkpoint
