#include "common/telemetry/exemplars.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace expertmesh::telemetry {
namespace {

// All of its parts are made from one number.
Exemplar Made(uint64_t from) {
  return {{{from, from + 1}, from + 2},
          static_cast<double>(from),
          absl::FromUnixNanos(static_cast<int64_t>(from))};
}

TEST(ExemplarSlotTest, HoldsTheLast) {
  ExemplarSlot slot;
  EXPECT_FALSE(slot.Get().has_value());
  slot.Put(Made(1));
  slot.Put(Made(7));
  const std::optional<Exemplar> found = slot.Get();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->context.trace_id.high, 7u);
  EXPECT_EQ(found->context.trace_id.low, 8u);
  EXPECT_EQ(found->context.span_id, 9u);
  EXPECT_EQ(found->value, 7);
  EXPECT_EQ(found->time, absl::FromUnixNanos(7));
}

TEST(ExemplarSlotTest, IsNeverMadeOfTwo) {
  ExemplarSlot slot;
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (uint64_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&slot, &stop, writer] {
      for (uint64_t i = 1 + writer; !stop; i += 2) {
        slot.Put(Made(i));
      }
    });
  }
  size_t read = 0;
  size_t torn = 0;
  while (read < 20'000) {
    if (const std::optional<Exemplar> found = slot.Get()) {
      ++read;
      const uint64_t from = found->context.trace_id.high;
      torn += found->context.trace_id.low == from + 1 && found->context.span_id == from + 2 &&
                      found->value == static_cast<double>(from) &&
                      found->time == absl::FromUnixNanos(static_cast<int64_t>(from))
                  ? 0
                  : 1;
    }
  }
  stop = true;
  for (std::thread& writer : writers) {
    writer.join();
  }
  EXPECT_EQ(torn, 0u);
}

TEST(ExemplarSlotsTest, ABoundBelongsToTheBucketBelowIt) {
  ExemplarSlots slots({1, 2});
  slots.Put(Made(1));
  slots.Put(Made(3));
  EXPECT_EQ(slots.Get(0)->value, 1);
  EXPECT_FALSE(slots.Get(1).has_value());
  EXPECT_EQ(slots.Get(2)->value, 3);
  EXPECT_FALSE(slots.Get(3).has_value());
  slots.Put({{{0, 0}, 5}, 1.5, absl::UnixEpoch()});  // No trace has this id.
  EXPECT_FALSE(slots.Get(1).has_value());
}

TEST(ExemplarsTest, AreOfTheirSeriesAlone) {
  Exemplars exemplars;
  exemplars.Add("a", {{"node", "1"}}, {1})->Put(Made(1));
  exemplars.Add("a", {{"node", "2"}}, {1});
  EXPECT_EQ(exemplars.Find("a", {{"node", "1"}}, 2).at(0)->value, 1);
  EXPECT_FALSE(exemplars.Find("a", {{"node", "2"}}, 2).at(0).has_value());
  EXPECT_TRUE(exemplars.Find("a", {}, 2).empty());
  EXPECT_TRUE(exemplars.Find("b", {{"node", "1"}}, 2).empty());
  EXPECT_EQ(exemplars.Add("a", {{"node", "1"}}, {1})->Get(0)->value, 1);  // The same again.
  exemplars.Remove("a", {{"node", "1"}});
  EXPECT_TRUE(exemplars.Find("a", {{"node", "1"}}, 2).empty());
}

}  // namespace
}  // namespace expertmesh::telemetry
