#include "router_service/balance/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace expertmesh::balance_control {
namespace {

using ::testing::HasSubstr;

class StateStoreTest : public testing::Test {
 protected:
  StateStoreTest() {
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/state_store_" + test.name();
    std::filesystem::remove_all(folder_);
  }
  ~StateStoreTest() override { std::filesystem::remove_all(folder_); }

  StateStore Open() const {
    absl::StatusOr<StateStore> store = StateStore::Open(folder_);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  std::string Newest() const { return folder_ + "/balance.state"; }
  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void Write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }

  std::string folder_;
  std::string note_;
};

TEST_F(StateStoreTest, GivesBackWhatWasSavedLast) {
  {
    const StateStore store = Open();
    EXPECT_EQ(store.Load(&note_)->has_value(), false);
    ASSERT_TRUE(store.Save("one").ok());
    ASSERT_TRUE(store.Save(std::string(100'000, 'x')).ok());
  }
  EXPECT_EQ(**Open().Load(&note_), std::string(100'000, 'x'));
  EXPECT_EQ(note_, "");
}

TEST_F(StateStoreTest, AKillInAnyPlaceLeavesAStateThatIsWhole) {
  const StateStore store = Open();
  ASSERT_TRUE(store.Save("before").ok());
  ASSERT_TRUE(store.Save("after").ok());
  const std::string whole = Read(Newest());
  for (size_t size = 0; size < whole.size(); ++size) {
    Write(Newest(), whole.substr(0, size));
    ASSERT_EQ(**store.Load(&note_), "before") << size;
    EXPECT_THAT(note_, HasSubstr("what was kept before it is used"));
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    Write(Newest(), flipped);
    const std::string loaded = **store.Load(&note_);
    EXPECT_TRUE(loaded == "before" || (at >= 12 && at < 16)) << at << " " << loaded;
  }
  std::filesystem::remove(Newest());
  EXPECT_EQ(**store.Load(&note_), "before");
}

TEST_F(StateStoreTest, WhatIsDamagedNeverTakesThePlaceOfWhatIsWhole) {
  const StateStore store = Open();
  ASSERT_TRUE(store.Save("good").ok());
  ASSERT_TRUE(store.Save("better").ok());
  Write(Newest(), "torn");
  ASSERT_TRUE(store.Save("new").ok());
  Write(Newest(), "torn");
  EXPECT_EQ(**store.Load(&note_), "good");
}

TEST_F(StateStoreTest, NothingWholeIsAnErrorThatSaysWhatToDo) {
  const StateStore store = Open();
  Write(Newest(), "a file of something else, long enough to have a header");
  const absl::Status status = store.Load(&note_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("balance.state is no state of a router"));
  EXPECT_THAT(status.message(), HasSubstr("remove both to begin without a state"));
}

TEST_F(StateStoreTest, AFolderBelongsToOneProcessAtATime) {
  const StateStore store = Open();
  const absl::Status second = StateStore::Open(folder_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr("is in use by another process"));
}

TEST_F(StateStoreTest, AFolderThatCannotBeIsNamed) {
  Write(folder_, "a file");
  EXPECT_THAT(StateStore::Open(folder_).status().message(), HasSubstr(folder_));
}

}  // namespace
}  // namespace expertmesh::balance_control
