#include "common/balance/routing_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace expertmesh::balance {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const RecordedModel kModel = {.identity = {.fingerprint = "finger", .outline = "outline"},
                              .layers = {{.layer = 1, .num_experts = 4, .top_k = 2},
                                         {.layer = 3, .num_experts = 256, .top_k = 1},
                                         {.layer = 4, .num_experts = 300, .top_k = 3}}};

const std::vector<RecordedBatch> kBatches = {
    {.time_us = 1'000'000, .epoch = 7, .layer = 1, .tokens = 2, .experts = {0, 3, 2, kNoExpert}},
    {.time_us = 1'000'400,
     .epoch = 7,
     .layer = 3,
     .tokens = 3,
     .batch_us = 350,
     .node_us = 120,
     .experts = {255, 0, 17}},
    {.time_us = 1'000'500, .epoch = 8, .layer = 3, .tokens = 2, .experts = {kNoExpert, 255}},
    {.time_us = 1'000'900, .epoch = 8, .layer = 4, .tokens = 1, .experts = {299, kNoExpert, 256}},
    {.time_us = 1'001'000, .epoch = 9, .layer = 1, .tokens = 0, .experts = {}}};

class RoutingRecordTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("routing_record_", info->name(), "_", getpid());
    std::filesystem::create_directories(folder_);
    name_ = folder_ / "record";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
  }
  void SetBytes(const std::string& path, absl::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  // All batches of kBatches, in one file.
  void WriteAll() {
    auto writer = RoutingRecordWriter::Create(name_, kModel, 1 << 20);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const RecordedBatch& batch : kBatches) {
      ASSERT_TRUE((*writer)->Add(batch).ok());
    }
    EXPECT_EQ((*writer)->bytes(), std::filesystem::file_size(name_));
  }

  std::filesystem::path folder_;
  std::string name_;
};

struct Read {
  absl::Status status;
  std::vector<RecordedBatch> batches;
  uint64_t cut_off_bytes = 0;
};

Read ReadAll(const std::string& path) {
  Read read;
  auto reader = RoutingRecordReader::Open(path);
  if (!reader.ok()) {
    read.status = reader.status();
    return read;
  }
  RecordedBatch batch;
  while (true) {
    const absl::StatusOr<bool> more = (*reader)->Next(&batch);
    if (!more.ok() || !*more) {
      read.status = more.status();
      read.cut_off_bytes = (*reader)->cut_off_bytes();
      EXPECT_EQ((*reader)->batches(), read.batches.size());
      return read;
    }
    read.batches.push_back(batch);
  }
}

// The first `count` of kBatches, and no others.
void ExpectFirst(const Read& read, size_t count, const std::string& where) {
  ASSERT_LE(count, kBatches.size());
  EXPECT_EQ(read.batches, std::vector<RecordedBatch>(kBatches.begin(), kBatches.begin() + count))
      << where;
}

TEST_F(RoutingRecordTest, ComesBackAsItWasWritten) {
  WriteAll();
  auto reader = RoutingRecordReader::Open(name_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->model().layers, kModel.layers);
  EXPECT_EQ((*reader)->model().identity.fingerprint, "finger");
  EXPECT_EQ((*reader)->model().identity.outline, "outline");
  const Read read = ReadAll(name_);
  EXPECT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.cut_off_bytes, 0u);
  ExpectFirst(read, kBatches.size(), "all");
}

TEST_F(RoutingRecordTest, TakesOneByteForAnExpertWhereThatIsEnough) {
  auto writer = RoutingRecordWriter::Create(name_, kModel, 1 << 20);
  ASSERT_TRUE(writer.ok());
  uint64_t before = (*writer)->bytes();
  const auto size_of = [&](const RecordedBatch& batch) {
    EXPECT_TRUE((*writer)->Add(batch).ok());
    const uint64_t size = (*writer)->bytes() - before;
    before = (*writer)->bytes();
    return size;
  };
  const uint64_t fixed = 8 + 36 + 8;
  EXPECT_EQ(size_of(kBatches[0]), fixed + 4);
  EXPECT_EQ(size_of(kBatches[1]), fixed + 3);
  EXPECT_EQ(size_of(kBatches[2]), fixed + 4) << "256 experts and one slot without";
  EXPECT_EQ(size_of(kBatches[3]), fixed + 6);
}

TEST_F(RoutingRecordTest, EndsCleanlyWhereverItWasCutOff) {
  WriteAll();
  const std::string whole = Bytes(name_);
  // Ends of header and batches.
  std::vector<size_t> ends = {whole.size()};
  for (auto batch = kBatches.rbegin(); batch != kBatches.rend(); ++batch) {
    const bool narrow = batch->layer == 1 || batch->batch_us != kNoMicros;
    ends.insert(ends.begin(), ends.front() - 52 - batch->experts.size() * (narrow ? 1 : 2));
  }
  const std::string cut = folder_ / "cut";
  for (size_t size = 0; size <= whole.size(); ++size) {
    SetBytes(cut, whole.substr(0, size));
    const Read read = ReadAll(cut);
    if (size < ends.front()) {
      EXPECT_EQ(read.status.code(), size > 0 && size < 8 ? absl::StatusCode::kInvalidArgument
                                                         : absl::StatusCode::kOutOfRange)
          << size << read.status;
      EXPECT_THAT(read.status.message(), HasSubstr(cut));
      continue;
    }
    EXPECT_TRUE(read.status.ok()) << size << read.status;
    size_t batches = 0;
    while (batches + 1 < ends.size() && ends[batches + 1] <= size) {
      ++batches;
    }
    ExpectFirst(read, batches, absl::StrCat("cut at ", size));
    EXPECT_EQ(read.cut_off_bytes, size - ends[batches]) << size;
  }
}

TEST_F(RoutingRecordTest, NoticesEveryFlippedByte) {
  WriteAll();
  const std::string whole = Bytes(name_);
  const std::string other = folder_ / "other";
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      SetBytes(other, bytes);
      const Read read = ReadAll(other);
      ASSERT_FALSE(read.status.ok()) << i;
      EXPECT_THAT(read.status.message(), HasSubstr(other));
      ASSERT_LT(read.batches.size(), kBatches.size());
      ExpectFirst(read, read.batches.size(), absl::StrCat("byte ", i));
    }
  }
}

TEST_F(RoutingRecordTest, NamesOffsetAndRemedy) {
  WriteAll();
  std::string bytes = Bytes(name_);
  bytes[bytes.size() - 9] ^= 1;  // In the last batch.
  SetBytes(name_, bytes);
  const Read read = ReadAll(name_);
  EXPECT_EQ(read.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read.status.message(),
            absl::StrCat(name_, ": the batch at byte ", bytes.size() - 52,
                         " is not what was written: the file is damaged. The 4 batches before it "
                         "can be had from a copy of its first ",
                         bytes.size() - 52, " bytes"));
}

TEST_F(RoutingRecordTest, RefusesWhatIsNoRecording) {
  EXPECT_EQ(ReadAll(folder_ / "none").status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadAll(folder_).status.code(), absl::StatusCode::kInvalidArgument);
  SetBytes(name_, "{\"layers\": []} and more text than a prefix has");
  EXPECT_THAT(ReadAll(name_).status.message(), HasSubstr("is no recording of routing"));
  std::string newer("EXMROUTE\2\0\0\0\40\0\0\0", 16);
  SetBytes(name_, newer);
  EXPECT_EQ(ReadAll(name_).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(ReadAll(name_).status.message(),
              HasSubstr("version 2; this program reads version 1"));
  std::string huge("EXMROUTE\1\0\0\0\xff\xff\xff\xff", 16);
  SetBytes(name_, huge);
  EXPECT_THAT(ReadAll(name_).status.message(), HasSubstr("header of 4294967295 bytes"));
}

TEST_F(RoutingRecordTest, TurnsOverWithinItsBound) {
  constexpr uint64_t kMost = 4000;
  RecordedBatch batch = kBatches[1];
  {
    auto writer = RoutingRecordWriter::Create(name_, kModel, kMost);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (uint64_t i = 0; i < 500; ++i) {
      batch.time_us = i;
      ASSERT_TRUE((*writer)->Add(batch).ok());
      ASSERT_LE((*writer)->bytes(), kMost);
    }
    EXPECT_EQ((*writer)->bytes(),
              std::filesystem::file_size(name_) + std::filesystem::file_size(name_ + ".1"));
  }
  auto files = RecordingFiles(name_);
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(*files, ElementsAre(name_ + ".1", name_));
  std::vector<uint64_t> times;
  for (const std::string& file : *files) {
    for (const RecordedBatch& read : ReadAll(file).batches) {
      times.push_back(read.time_us);
    }
  }
  ASSERT_GT(times.size(), 30u);
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_EQ(times[i], 500 - times.size() + i) << "the last ones, none missing";
  }
}

TEST_F(RoutingRecordTest, AnEarlierRecordingIsKept) {
  WriteAll();
  auto writer = RoutingRecordWriter::Create(name_, kModel, 1 << 20);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ(ReadAll(name_ + ".1").batches.size(), kBatches.size());
  EXPECT_EQ(ReadAll(name_).batches.size(), 0u);
  EXPECT_TRUE(ReadAll(name_).status.ok());
  writer->reset();
  // One that was allowed more than this one.
  auto smaller = RoutingRecordWriter::Create(name_, kModel, 1 << 10);
  ASSERT_TRUE(smaller.ok()) << smaller.status();
  EXPECT_LE((*smaller)->bytes(), 1u << 10);
}

TEST_F(RoutingRecordTest, OneThatHasJustBegunIsNoneBesideAnOlderOne) {
  WriteAll();
  std::filesystem::rename(name_, name_ + ".1");
  const std::string begun = Bytes(name_ + ".1").substr(0, 30);
  SetBytes(name_, begun);
  EXPECT_THAT(RecordingFiles(name_).value(), ElementsAre(name_ + ".1"));
  // Damage is told, and so is one that is alone.
  std::string damaged = Bytes(name_ + ".1");
  damaged[40] ^= 1;
  SetBytes(name_, damaged);
  EXPECT_THAT(RecordingFiles(name_).value(), ElementsAre(name_ + ".1", name_));
  std::filesystem::remove(name_ + ".1");
  SetBytes(name_, begun);
  EXPECT_THAT(RecordingFiles(name_).value(), ElementsAre(name_));
}

TEST_F(RoutingRecordTest, OneWithoutABatchIsNotKept) {
  WriteAll();
  ASSERT_TRUE(RoutingRecordWriter::Create(name_, kModel, 1 << 20).ok());
  ASSERT_TRUE(RoutingRecordWriter::Create(name_, kModel, 1 << 20).ok());
  EXPECT_EQ(ReadAll(name_ + ".1").batches.size(), kBatches.size()) << "two starts later";
}

TEST_F(RoutingRecordTest, AWriteThatFailsLeavesWhatWasThere) {
  auto writer = RoutingRecordWriter::Create(name_, kModel, 1 << 20);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Add(kBatches[0]).ok());
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit full = {(*writer)->bytes() + 20, limit.rlim_max};  // Within the next batch.
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  const absl::Status failed = (*writer)->Add(kBatches[1]);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(failed.code(), absl::StatusCode::kUnavailable) << failed;
  EXPECT_EQ(std::filesystem::file_size(name_), (*writer)->bytes());
  ExpectFirst(ReadAll(name_), 1, "after the failure");
  EXPECT_TRUE((*writer)->Add(kBatches[1]).ok());
  ExpectFirst(ReadAll(name_), 2, "once there is room");
}

TEST_F(RoutingRecordTest, NeverReplacesWhatIsNoRecording) {
  for (const std::string& path : {name_, name_ + ".1"}) {
    SetBytes(path, "some notes");
    const auto writer = RoutingRecordWriter::Create(name_, kModel, 1 << 20);
    EXPECT_EQ(writer.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(writer.status().message(), HasSubstr(path));
    EXPECT_EQ(Bytes(path), "some notes");
    std::filesystem::remove(path);
  }
  SetBytes(name_, "");  // Killed before it wrote a header.
  EXPECT_TRUE(RoutingRecordWriter::Create(name_, kModel, 1 << 20).ok());
}

TEST_F(RoutingRecordTest, RefusesBatchesThatItCouldNotReadAgain) {
  auto writer = RoutingRecordWriter::Create(name_, kModel, 2000);
  ASSERT_TRUE(writer.ok());
  const uint64_t before = (*writer)->bytes();
  const auto refused = [&](RecordedBatch batch) {
    const absl::Status status = (*writer)->Add(batch);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refused({.layer = 2, .experts = {}}), HasSubstr("layer 2 is none"));
  EXPECT_THAT(refused({.layer = 1, .tokens = 2, .experts = {1}}), HasSubstr("takes 2 a token"));
  EXPECT_THAT(refused({.layer = 1, .tokens = 1, .experts = {1, 4}}), HasSubstr("expert 4 of"));
  EXPECT_THAT(refused({.layer = 1, .tokens = 999, .experts = std::vector<uint32_t>(1998)}),
              HasSubstr("may take 4060 bytes"));
  EXPECT_EQ((*writer)->bytes(), before);
  EXPECT_TRUE((*writer)->Add(kBatches[0]).ok());
  ExpectFirst(ReadAll(name_), 1, "after refusals");
}

TEST_F(RoutingRecordTest, RefusesModelsThatAreNone) {
  const auto refused = [&](std::vector<RecordedLayer> layers) {
    const auto writer =
        RoutingRecordWriter::Create(name_, {.identity = {}, .layers = layers}, 9999);
    EXPECT_EQ(writer.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(writer.status().message());
  };
  EXPECT_THAT(refused({}), HasSubstr("0 layers"));
  EXPECT_THAT(refused({{1, 0, 1}}), HasSubstr("num_experts is 0"));
  EXPECT_THAT(refused({{1, 70'000, 1}}), HasSubstr("num_experts is 70000"));
  EXPECT_THAT(refused({{1, 4, 5}}), HasSubstr("top_k is 5"));
  EXPECT_THAT(refused({{1, 4, 0}}), HasSubstr("top_k is 0"));
  EXPECT_THAT(refused({{2, 4, 1}, {2, 4, 1}}), HasSubstr("layer 2 follows layer 2"));
  std::vector<RecordedLayer> many;
  for (uint32_t layer = 0; layer < 17; ++layer) {
    many.push_back({layer, 65'535, 1});
  }
  EXPECT_THAT(refused(many), HasSubstr("1114095 experts in all layers; use at most 1048576"));
  EXPECT_THAT(RoutingRecordWriter::Create(name_, kModel, 100).status().message(),
              HasSubstr("max_bytes is 100"));
  EXPECT_FALSE(std::filesystem::exists(name_));
}

// Written by a script that knows the format and nothing of this code: what must stay readable.
TEST(GoldenRecordTest, IsRead) {
  const std::string path = EXPERTMESH_SOURCE_DIR "/tests/golden/balance/record.bin";
  const auto reader = RoutingRecordReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->model().identity.fingerprint, "golden fingerprint");
  EXPECT_EQ((*reader)->model().identity.outline, "golden outline");
  EXPECT_EQ((*reader)->model().layers[3], (RecordedLayer{4, 32, 4}));
  const Read read = ReadAll(path);
  EXPECT_TRUE(read.status.ok()) << read.status;
  ASSERT_EQ(read.batches.size(), 80u);
  EXPECT_EQ(read.batches[0].batch_us, kNoMicros);
  EXPECT_EQ(read.batches[79].batch_us, 590u);
  EXPECT_EQ(read.batches[79].node_us, 100u);
  EXPECT_EQ(read.batches[79].time_us, 1'700'000'001'900'004u);
  EXPECT_EQ(read.batches[79].epoch, 7u);
  EXPECT_EQ(read.batches[79].experts.size(), read.batches[79].tokens * 4);
}

TEST(RecordedModelTest, LeavesOutLayersWithoutSlots) {
  ModelDescription model;
  model.layers.resize(2);
  model.layers[0].layer = 0;
  model.layers[0].routing.num_experts = 8;
  model.layers[0].routing.choice = Choice::kExpertChoice;
  model.layers[1].layer = 5;
  model.layers[1].routing.num_experts = 16;
  model.layers[1].routing.top_k = 4;
  EXPECT_THAT(RecordedModelOf(model, {}).layers, ElementsAre(RecordedLayer{5, 16, 4}));
}

}  // namespace
}  // namespace expertmesh::balance
