#include "common/checkpoint/safetensors.h"

#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/checkpoint/safetensors_writer.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;
using testing::ElementsAre;

constexpr char kOneTensor[] = R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})";
constexpr char kOtherTensor[] = R"({"b": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})";

absl::Span<const uint8_t> Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

TEST(SafetensorsReader, ReadsOneFile) {
  TemporaryFolder folder;
  WriteFile(folder / "x.safetensors", SafetensorsBytes(kOneTensor, 4));
  const auto reader = SafetensorsReader::OpenFile(folder / "x.safetensors");
  ASSERT_TRUE(reader.ok()) << reader.status();
  const auto tensor = (*reader)->Find("a");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ((*tensor)->dtype, Dtype::kU8);
  EXPECT_THAT((*tensor)->shape, ElementsAre(4));
  EXPECT_THAT(std::vector<int>((*tensor)->data, (*tensor)->data + (*tensor)->bytes),
              ElementsAre(1, 2, 3, 4));
  EXPECT_EQ((*reader)->PathOf(**tensor), folder / "x.safetensors");
  (*reader)->WillNeed((*tensor)->data, (*tensor)->bytes);
}

TEST(SafetensorsReader, APipeIsRefusedAtOnce) {
  TemporaryFolder folder;
  const std::string pipe = folder / "x.safetensors";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ExpectError(SafetensorsReader::OpenFile(pipe).status(), StatusCode::kInvalidArgument,
              "x.safetensors", "not a regular file");
}

TEST(SafetensorsReader, NamesFileAndTensorWhenMissing) {
  TemporaryFolder folder;
  WriteFile(folder / "x.safetensors", SafetensorsBytes(kOneTensor, 4));
  const auto reader = SafetensorsReader::OpenFile(folder / "x.safetensors");
  ASSERT_TRUE(reader.ok());
  ExpectError((*reader)->Find("hidden_states").status(), StatusCode::kNotFound, "x.safetensors",
              "'hidden_states'");
  ExpectError(SafetensorsReader::OpenFile(folder / "y.safetensors").status(), StatusCode::kNotFound,
              "y.safetensors");
  ExpectError(SafetensorsReader::OpenFile(folder.path()).status(), StatusCode::kInvalidArgument,
              "not a regular file");
}

TEST(SafetensorsReader, RefusesTruncatedFiles) {
  TemporaryFolder folder;
  const std::string whole = SafetensorsBytes(kOneTensor, 4);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{20}, whole.size() - 1}) {
    WriteFile(folder / "x.safetensors", whole.substr(0, size));
    ExpectError(SafetensorsReader::OpenFile(folder / "x.safetensors").status(),
                StatusCode::kDataLoss, "x.safetensors", "truncated");
  }
}

TEST(SafetensorsReader, ReadsShards) {
  TemporaryFolder folder;
  WriteFile(folder / "one.safetensors", SafetensorsBytes(kOneTensor, 4));
  WriteFile(folder / "two.safetensors", SafetensorsBytes(kOtherTensor, 2));
  WriteFile(folder / "model.safetensors.index.json",
            R"({"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  const auto reader = SafetensorsReader::OpenFolder(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->tensors().size(), 2u);
  EXPECT_EQ((*reader)->PathOf(**(*reader)->Find("b")), folder / "two.safetensors");
}

TEST(SafetensorsReader, TakesTheSingleFileFirst) {
  TemporaryFolder folder;
  WriteFile(folder / "model.safetensors", SafetensorsBytes(kOneTensor, 4));
  WriteFile(folder / "model.safetensors.index.json", "{}");
  EXPECT_TRUE(SafetensorsReader::OpenFolder(folder.path() + "/").ok());
}

TEST(SafetensorsReader, ExplainsAFolderWithoutSafetensors) {
  TemporaryFolder folder;
  ExpectError(SafetensorsReader::OpenFolder(folder.path()).status(), StatusCode::kNotFound,
              folder.path(), "model.safetensors.index.json");
}

TEST(SafetensorsReader, RefusesIndexNamingMissingFilesOnly) {
  TemporaryFolder folder;
  WriteFile(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors"}})");
  ExpectError(SafetensorsReader::OpenFolder(folder.path()).status(), StatusCode::kNotFound,
              "one.safetensors", "'a'");
}

// Files one.safetensors with tensor a and two.safetensors with b, and an index.
class IndexTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "one.safetensors", SafetensorsBytes(kOneTensor, 4));
    WriteFile(folder_ / "two.safetensors", SafetensorsBytes(kOtherTensor, 2));
  }
  void Open(const std::string& weight_map) {
    WriteFile(folder_ / "model.safetensors.index.json", R"({"weight_map": )" + weight_map + "}");
    auto opened = SafetensorsReader::OpenFolder(folder_.path());
    ASSERT_TRUE(opened.ok()) << opened.status();
    reader_ = *std::move(opened);
  }
  std::string FileOf(const std::string& tensor) const {
    const auto found = reader_->Find(tensor);
    return found.ok() ? reader_->PathOf(**found).substr(folder_.path().size() + 1) : "";
  }
  // There is one, and it has these parts.
  template <typename... Parts>
  void ExpectWarning(const Parts&... parts) {
    ASSERT_EQ(reader_->warnings().size(), 1u);
    for (const std::string& part : {std::string(parts)...}) {
      EXPECT_THAT(reader_->warnings()[0], testing::HasSubstr(part));
    }
  }

  TemporaryFolder folder_;
  std::unique_ptr<SafetensorsReader> reader_;
};

TEST_F(IndexTest, AMissingFileMattersWhenSomethingInItIsAskedFor) {
  std::filesystem::remove(folder_ / "two.safetensors");
  Open(R"({"a": "one.safetensors", "b": "two.safetensors"})");
  EXPECT_FALSE(reader_->complete());
  EXPECT_EQ(FileOf("a"), "one.safetensors");
  ExpectError(reader_->Find("b").status(), StatusCode::kNotFound, folder_ / "two.safetensors",
              "'b'", "not here");
  EXPECT_TRUE(reader_->Knows("b"));
  EXPECT_FALSE(reader_->Knows("c"));
  EXPECT_EQ(reader_->PlaceOf("b"), folder_ / "two.safetensors");
  ExpectWarning("1 of 2 files", "two.safetensors");
}

TEST_F(IndexTest, ATensorIsTakenFromTheFileThatHasIt) {
  Open(R"({"a": "two.safetensors", "b": "one.safetensors"})");
  EXPECT_TRUE(reader_->complete());
  EXPECT_EQ(FileOf("a"), "one.safetensors");
  EXPECT_EQ(FileOf("b"), "two.safetensors");
  ExpectWarning("model.safetensors.index.json", "'a'", "two.safetensors", "1 more");
  EXPECT_TRUE(reader_->absent().empty());
}

TEST_F(IndexTest, AFileThatDoesNotExistIsMadeUpForByTheOthers) {
  Open(R"({"a": "model-1-of-9.safetensors", "b": "two.safetensors", "c": "one.safetensors"})");
  EXPECT_EQ(FileOf("a"), "one.safetensors");
  EXPECT_FALSE(reader_->Find("c").ok());
}

TEST_F(IndexTest, ATensorThatTheIndexLacksIsFound) {
  WriteFile(folder_ / "one.safetensors",
            SafetensorsBytes(R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                                 "x": {"dtype": "U8", "shape": [1], "data_offsets": [4, 5]}})",
                             5));
  Open(R"({"a": "one.safetensors"})");
  EXPECT_EQ(FileOf("x"), "one.safetensors");
  EXPECT_FALSE((*reader_->Find("x"))->listed);
  EXPECT_TRUE((*reader_->Find("a"))->listed);
  ExpectWarning("does not list", "'x'", "one.safetensors");
}

TEST_F(IndexTest, ATensorThatNoFileHasIsNamed) {
  Open(R"({"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"})");
  EXPECT_TRUE(reader_->complete());
  ExpectError(reader_->Find("c").status(), StatusCode::kNotFound, "one.safetensors", "'c'");
  ExpectWarning("model.safetensors.index.json", "'c'", "one.safetensors");
}

TEST_F(IndexTest, WhatTwoFilesHaveIsInTheOneThatTheIndexNames) {
  WriteFile(folder_ / "two.safetensors", SafetensorsBytes(kOneTensor, 4));
  Open(R"({"a": "two.safetensors", "c": "one.safetensors"})");
  EXPECT_EQ(FileOf("a"), "two.safetensors");
  // Or it cannot be told.
  Open(R"({"a": "three.safetensors", "b": "two.safetensors", "c": "one.safetensors"})");
  ExpectError(reader_->Find("a").status(), StatusCode::kNotFound, "'a'", "one.safetensors",
              "two.safetensors");
  EXPECT_TRUE(reader_->Knows("a"));
}

TEST(SafetensorsReader, RefusesMalformedIndex) {
  TemporaryFolder folder;
  const char* const kBad[] = {"{",
                              "[]",
                              "{}",
                              R"({"weight_map": 3})",
                              R"({"weight_map": {}})",
                              R"({"weight_map": {"a": 1}})",
                              R"({"weight_map": {"a": ""}})",
                              R"({"weight_map": {"a": "x", "a": "y"}})"};
  for (const char* text : kBad) {
    WriteFile(folder / "model.safetensors.index.json", text);
    ExpectError(SafetensorsReader::OpenFolder(folder.path()).status(), StatusCode::kInvalidArgument,
                "model.safetensors.index.json");
  }
}

TEST(SafetensorsReader, RefusesIndexLeavingTheFolder) {
  TemporaryFolder folder;
  for (const char* name : {"../x.safetensors", "/etc/hostname", ".."}) {
    WriteFile(folder / "model.safetensors.index.json",
              std::string(R"({"weight_map": {"a": ")") + name + R"("}})");
    ExpectError(SafetensorsReader::OpenFolder(folder.path()).status(), StatusCode::kInvalidArgument,
                "'a'", name);
  }
}

TEST(SafetensorsWriter, RoundTrip) {
  TemporaryFolder folder;
  const std::vector<float> wide = {1.5f, -2.0f, 3.0f, 0.0f, 5.0f, 6.0f};
  const std::vector<uint8_t> narrow = {7, 8, 9};
  const TensorToWrite tensors[] = {{"narrow", Dtype::kU8, {3}, narrow},
                                   {"wide", Dtype::kF32, {2, 3}, Bytes(wide)},
                                   {"none", Dtype::kF16, {0, 4}, {}}};
  ASSERT_TRUE(WriteSafetensors(folder / "x.safetensors", tensors).ok());
  const auto reader = SafetensorsReader::OpenFile(folder / "x.safetensors");
  ASSERT_TRUE(reader.ok()) << reader.status();
  const TensorView& read = **(*reader)->Find("wide");
  EXPECT_THAT(read.shape, ElementsAre(2, 3));
  ASSERT_EQ(read.bytes, 24u);
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(read.data, 24), Bytes(wide), 3 * sizeof(float)));
  // Elements are aligned, which Python readers ask for.
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read.data) % alignof(float), 0u);
  EXPECT_EQ((*(*reader)->Find("narrow"))->data[2], 9);
  EXPECT_EQ((*(*reader)->Find("none"))->bytes, 0u);
  EXPECT_EQ((*reader)->metadata().at("format"), "pt");
}

TEST(SafetensorsWriter, StreamsInPieces) {
  TemporaryFolder folder;
  const TensorSpec specs[] = {{"a", Dtype::kU8, {6}}};
  const auto produce = [](size_t index, const ByteSink& sink) {
    EXPECT_EQ(index, 0u);
    const absl::Status first = sink("abcd", 4);
    return first.ok() ? sink("ef", 2) : first;
  };
  ASSERT_TRUE(WriteSafetensors(folder / "x.safetensors", specs, produce).ok());
  const auto reader = SafetensorsReader::OpenFile(folder / "x.safetensors");
  ASSERT_TRUE(reader.ok()) << reader.status();
  const absl::Span<const uint8_t> read((*(*reader)->Find("a"))->data, 6);
  EXPECT_TRUE(SameRows(read, std::string("abcdef"), 6));
}

TEST(SafetensorsWriter, LeavesNothingBehindWhenItFails) {
  TemporaryFolder folder;
  const std::string path = folder / "x.safetensors";
  WriteFile(path, "old");
  const TensorSpec specs[] = {{"a", Dtype::kU8, {6}}};
  const auto give = [&](absl::string_view bytes) {
    return WriteSafetensors(path, specs, [&](size_t, const ByteSink& sink) {
      return sink(bytes.data(), bytes.size());
    });
  };
  ExpectError(give("abc"), StatusCode::kInvalidArgument, "'a'", "fewer than");
  ExpectError(give("abcdefg"), StatusCode::kInvalidArgument, "'a'", "more than");
  ExpectError(WriteSafetensors(path, specs,
                               [](size_t, const ByteSink&) { return absl::AbortedError("stop"); }),
              StatusCode::kAborted, "stop");
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(SafetensorsWriter, RefusesBadSpecs) {
  TemporaryFolder folder;
  const auto write = [&](const std::vector<TensorSpec>& specs) {
    return WriteSafetensors(folder / "x.safetensors", specs,
                            [](size_t, const ByteSink&) { return absl::OkStatus(); });
  };
  ExpectError(write({{"a", Dtype::kU8, {0}}, {"a", Dtype::kU8, {0}}}), StatusCode::kInvalidArgument,
              "'a'", "twice");
  ExpectError(write({{"__metadata__", Dtype::kU8, {0}}}), StatusCode::kInvalidArgument, "reserved");
  ExpectError(write({{"a", Dtype::kF32, {uint64_t{1} << 62}}}), StatusCode::kInvalidArgument, "'a'",
              "overflows");
  ExpectError(write({{"\xff", Dtype::kF32, {0}}}), StatusCode::kInvalidArgument, "x.safetensors");
  ExpectError(WriteSafetensors(folder / "no/x.safetensors", absl::Span<const TensorToWrite>()),
              StatusCode::kInternal, "no/x.safetensors");
}

}  // namespace
}  // namespace expertmesh::checkpoint
