#include "common/base/process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"

namespace expertmesh {
namespace {

std::vector<std::string> Hyphens(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  AcceptHyphens(static_cast<int>(argv.size()), argv.data());
  return arguments;
}

TEST(ProcessTest, HyphensOfFlagNamesBecomeUnderscoresAndNothingElseChanges) {
  EXPECT_EQ(Hyphens({"a-b", "--drain-timeout", "--node-id=a-b", "x-y", "-s-t", "--", "--c-d"}),
            (std::vector<std::string>{"a-b", "--drain_timeout", "--node_id=a-b", "x-y", "-s-t",
                                      "--", "--c-d"}));
}

TEST(ProcessTest, PortFileHoldsBothPortsAndNothingIsLeftBesideIt) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "process_test_port_file";
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(WritePortFile((folder / "ports").string(), 1234, 5678).ok());
  std::ifstream file(folder / "ports");
  std::stringstream content;
  content << file.rdbuf();
  EXPECT_EQ(content.str(), "1234 5678\n");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

TEST(ProcessTest, PortFileErrorsNameThePath) {
  EXPECT_TRUE(WritePortFile("", 1, 2).ok());
  const absl::Status status = WritePortFile("/nonexistent/folder/ports", 1, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("/nonexistent/folder/ports"), absl::string_view::npos);
}

TEST(ProcessTest, KnowsItsMemoryAndCores) {
  EXPECT_GT(ResidentBytes(), uint64_t{1} << 20);
  EXPECT_GE(AvailableCores(), 1);
}

// glibc gives threads no more arenas than this, and what a thread frees stays at the end of its
// own.
TEST(ProcessTest, MemoryOfThreadsThatShareArenasIsGivenBack) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has an allocator of its own";
#endif
  TuneProcess();
  constexpr size_t kBlocks = 600;
  constexpr size_t kBlock = 64 << 10;
  const int arenas = 8 * static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  absl::Notification leave;
  absl::BlockingCounter there(arenas + 1);
  std::vector<std::thread> threads;
  for (int i = 0; i <= arenas; ++i) {
    threads.emplace_back([&, i] {
      std::vector<std::string> blocks;
      blocks.reserve(kBlocks);  // Below them all, as it stays.
      for (size_t block = 0; i == arenas / 2 && block < kBlocks; ++block) {
        blocks.emplace_back(kBlock, 'x');
      }
      blocks.clear();
      there.DecrementCount();
      leave.WaitForNotification();
    });
  }
  there.Wait();
  const uint64_t kept = ResidentBytes();
  TrimSharedMemory();
  EXPECT_LT(ResidentBytes() + kBlocks * kBlock / 2, kept);
  leave.Notify();
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace expertmesh
