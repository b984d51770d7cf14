#include "common/net/peer_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

namespace expertmesh::net {
namespace {

constexpr char kGreedy[] = "ipv4:10.0.0.1:1000";
constexpr char kOther[] = "ipv4:10.0.0.2:1000";

class PeerPlacesTest : public testing::Test {
 protected:
  PeerPlaces::Outcome Take(const std::string& peer) { return places_.Take(peer, next_id_++); }
  // Takes `count` places, which there must be.
  void Fill(const std::string& peer, int count) {
    for (int i = 0; i < count; ++i) {
      const PeerPlaces::Outcome outcome = Take(peer);
      ASSERT_TRUE(outcome.taken);
      ASSERT_EQ(outcome.displaced, std::nullopt);
    }
  }

  PeerPlaces places_{10};
  uint64_t next_id_ = 1;
};

TEST_F(PeerPlacesTest, OnePeerMayHaveAllAsLongAsNoOtherComes) {
  Fill(kGreedy, 10);
  EXPECT_FALSE(Take(kGreedy).taken);
  EXPECT_EQ(places_.taken(), 10u);
}

TEST_F(PeerPlacesTest, AnotherHostTakesTheNewestOfTheHostWithTheMost) {
  Fill(kGreedy, 10);
  for (uint64_t newest = 10; newest > 5; --newest) {
    const PeerPlaces::Outcome outcome = Take(kOther);
    EXPECT_TRUE(outcome.taken);
    EXPECT_EQ(outcome.displaced, newest);
  }
  // Now both have as many; taking from one another would never end.
  EXPECT_FALSE(Take(kOther).taken);
  EXPECT_FALSE(Take(kGreedy).taken);
  EXPECT_EQ(places_.taken(), 10u);
}

TEST_F(PeerPlacesTest, APeerWithOneLessTakesNone) {
  Fill(kGreedy, 5);
  Fill(kOther, 4);
  Fill("ipv4:10.0.0.3:1000", 1);
  EXPECT_FALSE(Take(kOther).taken);  // Else both would take turns for ever.
}

TEST_F(PeerPlacesTest, PortsOfAHostDoNotMakeItMore) {
  for (int port = 1000; port < 1010; ++port) {
    Fill("ipv4:10.0.0.1:" + std::to_string(port), 1);
  }
  EXPECT_TRUE(Take(kOther).displaced.has_value());
  EXPECT_TRUE(Take("ipv6:%5B2001:db8::1%5D:1000").displaced.has_value());
}

TEST_F(PeerPlacesTest, AConnectionTakesFromAnotherOfItsHostThatHasMore) {
  Fill(kGreedy, 10);
  const PeerPlaces::Outcome outcome = Take("ipv4:10.0.0.1:2000");
  EXPECT_TRUE(outcome.taken);
  EXPECT_EQ(outcome.displaced, 10u);
  EXPECT_FALSE(Take(kGreedy).taken);
}

TEST_F(PeerPlacesTest, WhoLeavesMakesRoom) {
  Fill(kGreedy, 10);
  places_.Leave(kGreedy, 3);
  places_.Leave(kGreedy, 3);   // It had left.
  places_.Leave(kOther, 4);    // Not its own.
  places_.Leave("unix:", 77);  // Not known.
  EXPECT_EQ(places_.taken(), 9u);
  Fill(kOther, 1);
  EXPECT_FALSE(Take(kGreedy).taken);
}

TEST_F(PeerPlacesTest, WhereThereAreNoneNoPeerGetsOne) {
  PeerPlaces none(0);
  EXPECT_FALSE(none.Take(kGreedy, 1).taken);
}

}  // namespace
}  // namespace expertmesh::net
