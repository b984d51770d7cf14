#include "common/checkpoint/mapped_file.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;

constexpr size_t kPages = 64;

size_t FileBytes() { return kPages * static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Every byte is looked at, and counts.
uint64_t Sum(const MappedFile& file) {
  return std::accumulate(file.data(), file.data() + file.size(), uint64_t{0});
}

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(path_, std::string(FileBytes(), '\1'));
    Open();
  }

  void Open() {
    auto file = MappedFile::Open(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "x.safetensors";
  std::unique_ptr<MappedFile> file_;
};

TEST_F(MappedFileTest, AFileThatStaysIsUnchanged) {
  EXPECT_EQ(Sum(*file_), FileBytes());
  EXPECT_TRUE(file_->CheckUnchanged().ok());
}

// Pages that are gone: the process lives, and the reader is told.
TEST_F(MappedFileTest, AShortenedFileIsAnErrorWithBothSizes) {
  std::filesystem::resize_file(path_, 100);
  EXPECT_LE(Sum(*file_), FileBytes());
  ExpectError(file_->CheckUnchanged(), StatusCode::kDataLoss, path_, "has 100 bytes",
              std::to_string(FileBytes()), "shortened");
  // And its name is there for a new one.
  file_.reset();
  WriteFile(path_, std::string(FileBytes(), '\1'));
  Open();
  EXPECT_EQ(Sum(*file_), FileBytes());
  EXPECT_TRUE(file_->CheckUnchanged().ok());
}

// The rest of the last page reads as zeros, without a fault.
TEST_F(MappedFileTest, AFileShortenedInsideItsLastPageIsAnError) {
  std::filesystem::resize_file(path_, FileBytes() - 10);
  EXPECT_EQ(Sum(*file_), FileBytes() - 10);
  ExpectError(file_->CheckUnchanged(), StatusCode::kDataLoss, "shortened");
}

TEST_F(MappedFileTest, AFileShortenedWhileThreadsReadIsAnError) {
  std::atomic<int> reading{0};
  std::atomic<bool> shortened{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (bool last = false; !last;) {
        last = shortened;
        EXPECT_LE(Sum(*file_), FileBytes());
        ++reading;
      }
    });
  }
  while (reading < 4) {
    std::this_thread::yield();
  }
  std::filesystem::resize_file(path_, 0);
  shortened = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  ExpectError(file_->CheckUnchanged(), StatusCode::kDataLoss, "has 0 bytes");
}

// As `cp new old` does: what was read meanwhile is of neither.
TEST_F(MappedFileTest, AFileWrittenToInPlaceIsAnError) {
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(Sum(*file_), 0u);
  WriteFile(path_, std::string(FileBytes(), '\1'));
  std::filesystem::last_write_time(
      path_, std::filesystem::last_write_time(path_) + std::chrono::seconds(1));
  ExpectError(file_->CheckUnchanged(), StatusCode::kDataLoss, path_, "written to while in use");
}

TEST_F(MappedFileTest, ANewFileOfTheSameNameChangesNothing) {
  WriteFile(path_ + ".new", "short");
  std::filesystem::rename(path_ + ".new", path_);
  EXPECT_EQ(Sum(*file_), FileBytes());
  EXPECT_TRUE(file_->CheckUnchanged().ok());
}

TEST_F(MappedFileTest, OneFileOfManyIsBlamed) {
  const std::unique_ptr<MappedFile> damaged = std::move(file_);
  WriteFile(folder_ / "other", std::string(FileBytes(), '\2'));
  const auto other = MappedFile::Open(folder_ / "other");
  ASSERT_TRUE(other.ok());
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(Sum(*damaged), 0u);
  EXPECT_EQ(Sum(**other), 2 * FileBytes());
  EXPECT_FALSE(damaged->CheckUnchanged().ok());
  EXPECT_TRUE((*other)->CheckUnchanged().ok());
}

TEST(MappedFileDeathTest, WhatLiesInNoFileStillEndsTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto die = [] {
    TemporaryFolder folder;
    WriteFile(folder / "x", "x");
    const auto file = MappedFile::Open(folder / "x");
    raise(SIGBUS);
  };
  EXPECT_EXIT(die(), testing::KilledBySignal(SIGBUS), "");
}

TEST(MappedFileDeathTest, AnEarlierHandlerGetsWhatLiesInNoFile) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto die = [] {
    struct sigaction action = {};
    action.sa_handler = [](int) { _exit(7); };
    sigaction(SIGBUS, &action, nullptr);
    TemporaryFolder folder;
    WriteFile(folder / "x", "x");
    const auto file = MappedFile::Open(folder / "x");
    raise(SIGBUS);
  };
  EXPECT_EXIT(die(), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace expertmesh::checkpoint
