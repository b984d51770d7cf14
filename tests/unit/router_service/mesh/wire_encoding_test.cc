#include "router_service/mesh/wire_encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/wire/wire_dtype.h"

namespace expertmesh::mesh {
namespace {

using testing::AllOf;
using testing::HasSubstr;

WireEncodings Parsed(const char* hidden_states, const char* partials, Dtype activation) {
  const absl::StatusOr<WireEncodings> encodings =
      WireEncodings::Parse(hidden_states, partials, activation);
  EXPECT_TRUE(encodings.ok()) << encodings.status();
  return *encodings;
}

std::string Error(const char* text) {
  const absl::Status status = WireEncodings::Parse("auto", text, Dtype::kBF16).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

TEST(WireEncodingTest, AutoIsTheActivationType) {
  for (const Dtype activation : {Dtype::kF32, Dtype::kBF16}) {
    const WireEncoding encoding = Parsed("auto", "auto", activation).For("a:1");
    EXPECT_EQ(encoding.hidden_states, activation);
    EXPECT_EQ(encoding.partials, activation);
  }
}

TEST(WireEncodingTest, EachTypeHasItsName) {
  const std::pair<const char*, Dtype> names[] = {{"f32", Dtype::kF32},
                                                 {"bf16", Dtype::kBF16},
                                                 {"f16", Dtype::kF16},
                                                 {"int8", Dtype::kI8Block128}};
  for (const auto& name : names) {
    EXPECT_EQ(Parsed(name.first, "auto", Dtype::kBF16).For("a:1").hidden_states, name.second);
    EXPECT_EQ(Parsed("auto", name.first, Dtype::kBF16).For("a:1").partials, name.second);
    EXPECT_EQ(WireName(name.second), name.first);
  }
}

TEST(WireEncodingTest, ExceptionsHoldForTheirAddressAndDirection) {
  const WireEncodings encodings = Parsed("b:2=f32", "f16,a:1=int8,[::1]:3=auto", Dtype::kBF16);
  EXPECT_EQ(encodings.For("a:1").hidden_states, Dtype::kBF16);
  EXPECT_EQ(encodings.For("a:1").partials, Dtype::kI8Block128);
  EXPECT_EQ(encodings.For("b:2").hidden_states, Dtype::kF32);
  EXPECT_EQ(encodings.For("b:2").partials, Dtype::kF16);
  EXPECT_EQ(encodings.For("[::1]:3").partials, Dtype::kBF16);
  EXPECT_EQ(encodings.For("a:10").partials, Dtype::kF16);
  // The order plays no part.
  EXPECT_EQ(Parsed("auto", "a:1=int8,f32", Dtype::kBF16).For("b:2").partials, Dtype::kF32);
}

TEST(WireEncodingTest, NonsenseIsRefusedByFlagAndEntry) {
  EXPECT_THAT(Error("int4"), AllOf(HasSubstr("--wire-partials has an entry 'int4'"),
                                   HasSubstr("auto, f32, bf16, f16 or int8")));
  EXPECT_THAT(Error(""), HasSubstr("an entry ''"));
  EXPECT_THAT(Error("f32,"), HasSubstr("an entry ''"));
  EXPECT_THAT(Error("F32"), HasSubstr("an entry 'F32'"));
  EXPECT_THAT(Error("f32,a:1=fp8"), HasSubstr("an entry 'a:1=fp8'"));
  EXPECT_THAT(Error("a:1="), HasSubstr("an entry 'a:1='"));
  EXPECT_THAT(Error("=int8"), HasSubstr("'=int8' without an address"));
  EXPECT_THAT(Error("f32,bf16"), HasSubstr("a second type for all nodes, 'bf16'"));
  EXPECT_THAT(Error("a:1=f32,a:1=f32"), HasSubstr("a second entry for a:1"));
  EXPECT_THAT(std::string(WireEncodings::Parse("x", "auto", Dtype::kF32).status().message()),
              HasSubstr("--wire-hidden-states has an entry 'x'"));
}

}  // namespace
}  // namespace expertmesh::mesh
