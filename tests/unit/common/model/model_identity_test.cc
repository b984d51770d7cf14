#include "common/model/model_identity.h"

#include <gtest/gtest.h>

namespace expertmesh {
namespace {

TEST(ModelIdentity, FingerprintsCountWhereBothAreWhole) {
  EXPECT_TRUE(SameModel({"a", "x"}, {"a", "x"}));
  EXPECT_FALSE(SameModel({"a", "x"}, {"b", "x"}));
  // A program that knows no outlines.
  EXPECT_TRUE(SameModel({"a", "x"}, {"a", ""}));
}

TEST(ModelIdentity, OutlinesCountWhereOneIsPartial) {
  const ModelIdentity whole = {"a", "x"};
  EXPECT_TRUE(SameModel(whole, {"partial:x", "x"}));
  EXPECT_TRUE(SameModel({"partial:x", "x"}, whole));
  EXPECT_TRUE(SameModel({"partial:x", "x"}, {"partial:x", "x"}));
  EXPECT_FALSE(SameModel(whole, {"partial:y", "y"}));
  EXPECT_FALSE(SameModel({"partial:x", "x"}, {"a", ""}));
  EXPECT_FALSE(SameModel({"partial:", ""}, {"partial:", ""}));
}

}  // namespace
}  // namespace expertmesh
