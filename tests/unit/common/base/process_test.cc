#include "common/base/process.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

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

}  // namespace
}  // namespace expertmesh
