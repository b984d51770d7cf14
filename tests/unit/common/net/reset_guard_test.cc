#include "common/net/reset_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace expertmesh::net {
namespace {

class ResetGuardTest : public testing::Test {
 protected:
  void Reset(const std::string& peer, uint64_t times) {
    for (uint64_t i = 0; i < times; ++i) {
      guard_.OnReset(peer);
    }
  }

  FakeClock clock_;
  std::vector<std::string> ended_;
  ResetGuard guard_{&clock_, [this](const std::string& peer) {
                      ended_.push_back(peer);
                      return true;
                    }};
};

TEST_F(ResetGuardTest, EndsTheOneThatTakesBackTooMany) {
  Reset("good", 10);
  Reset("bad", kMostResets);
  EXPECT_TRUE(ended_.empty());
  Reset("bad", 1);
  EXPECT_THAT(ended_, testing::ElementsAre("bad"));
}

TEST_F(ResetGuardTest, CountsWithinAWindow) {
  for (int i = 0; i < 10; ++i) {
    Reset("slow", kMostResets);
    clock_.Advance(kResetWindow);
  }
  EXPECT_TRUE(ended_.empty());
}

TEST_F(ResetGuardTest, LeavesAloneWhoIsAnsweredMoreOften) {
  for (uint64_t i = 0; i < 3 * kMostResets; ++i) {
    Reset("busy", 1);
    guard_.OnAnswer("busy");
    guard_.OnAnswer("busy");
    guard_.OnAnswer("another");
  }
  EXPECT_TRUE(ended_.empty());
  Reset("busy", 4 * kMostResets);
  EXPECT_THAT(ended_, testing::Contains("busy"));
}

}  // namespace
}  // namespace expertmesh::net
