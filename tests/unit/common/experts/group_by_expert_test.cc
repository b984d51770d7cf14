#include "common/experts/group_by_expert.h"

#include <random>
#include <vector>

#include "common/experts/backend.h"
#include "gtest/gtest.h"

namespace expertmesh::experts {
namespace {

class NoExpert final : public PackedExpert {
 public:
  size_t bytes() const override { return 0; }
};

TEST(GroupByExpertTest, GroupsInOrderOfAppearance) {
  const NoExpert a, b, c;
  GroupByExpert groups;
  groups.Build({&b, &a, &b, &c, &a, &b});
  ASSERT_EQ(groups.groups().size(), 3u);
  EXPECT_EQ(groups.groups()[0].expert, &b);
  EXPECT_EQ(groups.groups()[0].count, 3u);
  EXPECT_EQ(groups.groups()[1].expert, &a);
  EXPECT_EQ(groups.groups()[1].begin, 3u);
  EXPECT_EQ(groups.groups()[2].expert, &c);
  EXPECT_EQ(std::vector<uint32_t>(groups.order().begin(), groups.order().end()),
            (std::vector<uint32_t>{0, 2, 5, 1, 4, 3}));
}

TEST(GroupByExpertTest, TakesNothingAndNull) {
  GroupByExpert groups;
  groups.Build({});
  EXPECT_TRUE(groups.groups().empty());
  groups.Build({nullptr, nullptr});
  ASSERT_EQ(groups.groups().size(), 1u);
  EXPECT_EQ(groups.groups()[0].count, 2u);
}

TEST(GroupByExpertTest, ForgetsEarlierBatches) {
  const std::vector<NoExpert> experts(500);
  std::mt19937 random(1);
  GroupByExpert groups;
  for (const size_t used : {500, 3, 100, 1, 499}) {
    std::vector<const PackedExpert*> batch;
    for (int a = 0; a < 3000; ++a) {
      batch.push_back(&experts[random() % used]);
    }
    groups.Build(batch);
    EXPECT_LE(groups.groups().size(), used);
    std::vector<int> seen(batch.size(), 0);
    for (const GroupByExpert::Group& group : groups.groups()) {
      for (uint32_t i = 0; i < group.count; ++i) {
        const uint32_t a = groups.order()[group.begin + i];
        EXPECT_EQ(batch[a], group.expert);
        EXPECT_TRUE(i == 0 || groups.order()[group.begin + i - 1] < a);
        ++seen[a];
      }
    }
    EXPECT_EQ(seen, std::vector<int>(batch.size(), 1));
  }
}

}  // namespace
}  // namespace expertmesh::experts
