#include "router_service/mesh/link_time.h"

#include <gtest/gtest.h>

#include <random>

namespace expertmesh::mesh {
namespace {

constexpr double kHop = 500;

// `count` batches of 1 to 64 assignments, each of which takes the hop, `per_assignment`, and up to
// `noise` more or less.
void AddBatches(int count, double per_assignment, double noise, LinkTime* time, uint32_t seed = 1) {
  std::mt19937 random(seed);
  for (int i = 0; i < count; ++i) {
    const auto assignments = random() % 64 + 1;
    const double off = (static_cast<double>(random() % 2001) / 1000 - 1) * noise;
    time->Add(assignments,
              absl::Microseconds(kHop + per_assignment * static_cast<double>(assignments) + off));
  }
}

TEST(LinkTimeTest, TheHopIsNoPartOfIt) {
  LinkTime time;
  AddBatches(200, 3, 0, &time);
  EXPECT_NEAR(time.MicrosPerAssignment(), 3, 1e-2);
  LinkTime hop;
  AddBatches(200, 0, 0, &hop);
  EXPECT_NEAR(hop.MicrosPerAssignment(), 0, 1e-2);
}

TEST(LinkTimeTest, NoMoreIsToldThanIsCertain) {
  LinkTime clear;
  AddBatches(1000, 3, 40, &clear);
  EXPECT_GT(clear.MicrosPerAssignment(), 2.5);
  EXPECT_LT(clear.MicrosPerAssignment(), 3.1);
  // Beyond two standard errors, chance alone is seen in 2.3 % of all cases.
  int mistaken = 0;
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    LinkTime nothing;
    AddBatches(100, 0, 400, &nothing, seed);
    mistaken += nothing.MicrosPerAssignment() > 0 ? 1 : 0;
  }
  EXPECT_GT(mistaken, 10);
  EXPECT_LT(mistaken, 40);
}

TEST(LinkTimeTest, NothingIsKnownOfFewBatchesOrOfOneSize) {
  LinkTime time;
  EXPECT_EQ(time.MicrosPerAssignment(), 0);
  AddBatches(20, 3, 0, &time);
  EXPECT_EQ(time.MicrosPerAssignment(), 0);
  AddBatches(20, 3, 0, &time);
  EXPECT_NEAR(time.MicrosPerAssignment(), 3, 1e-2);
  LinkTime one_size;
  for (int i = 0; i < 100; ++i) {
    one_size.Add(8, absl::Microseconds(100 + i % 7));
  }
  EXPECT_EQ(one_size.MicrosPerAssignment(), 0);
}

TEST(LinkTimeTest, WhatWasLongAgoCountsForNothing) {
  LinkTime time;
  AddBatches(5'000, 9, 0, &time);
  AddBatches(20'000, 2, 0, &time);
  EXPECT_NEAR(time.MicrosPerAssignment(), 2, 1e-2);
}

// By a node's clock it may have taken longer than by the router's.
TEST(LinkTimeTest, NothingTakesLessThanNoTime) {
  LinkTime time;
  for (uint64_t i = 1; i < 100; ++i) {
    time.Add(i, absl::Microseconds(-10 * static_cast<int64_t>(100 - i)));
  }
  EXPECT_EQ(time.MicrosPerAssignment(), 0);
}

}  // namespace
}  // namespace expertmesh::mesh
