#include "common/experts/backend_factory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace expertmesh::experts {
namespace {

using ::testing::HasSubstr;

TEST(BackendFactoryTest, MakesTheBackendOfAName) {
  BackendOptions options;
  options.compute_dtype = Dtype::kF32;
  options.threads = 1;
  const auto backend = MakeBackend("cpu", options);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ((*backend)->name(), "cpu");
  EXPECT_EQ((*backend)->compute_dtype(), Dtype::kF32);
  EXPECT_GE((*backend)->preferred_in_flight(), 1u);
}

TEST(BackendFactoryTest, AnUnknownNameIsRefusedWithThoseThereAre) {
  const absl::Status status = MakeBackend("gpu", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no backend 'gpu'; this build has cpu"));
}

TEST(BackendFactoryTest, ABackendRefusesOptionsThatItCannotDo) {
  EXPECT_EQ(MakeBackend("cpu", {Dtype::kF16}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BackendFactoryTest, ReadsTheFlagOfWeights) {
  EXPECT_EQ(*ParseWeightStorage("expanded"), WeightStorage::kExpanded);
  EXPECT_EQ(*ParseWeightStorage("compressed"), WeightStorage::kCompressed);
  const absl::Status status = ParseWeightStorage("packed").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'packed'; use expanded or compressed"), std::string::npos);
}

}  // namespace
}  // namespace expertmesh::experts
