#include "common/trace/resource.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/trace/otlp.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::trace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(ResourceTest, PairsArePercentDecoded) {
  EXPECT_THAT(ParseResourceAttributes("k8s.pod.name=router-0, a=b%2Cc%3d%25 ,empty="),
              ElementsAre(Pair("k8s.pod.name", "router-0"), Pair("a", "b,c=%"), Pair("empty", "")));
}

TEST(ResourceTest, OneMistakeMeansNothingAtAll) {
  for (const char* text : {"a", "=b", "a=%2", "a=%zz", "a=1,b"}) {
    EXPECT_THAT(ParseResourceAttributes(text), IsEmpty()) << text;
  }
  std::string many;
  for (int i = 0; i < 65; ++i) {
    absl::StrAppend(&many, "k", i, "=1,");
  }
  EXPECT_THAT(ParseResourceAttributes(many), IsEmpty());
  EXPECT_THAT(ParseResourceAttributes(absl::StrCat("a=", std::string(1024, 'x'))), IsEmpty());
}

TEST(ResourceTest, TheLastValueOfAKeyCounts) {
  EXPECT_THAT(ParseResourceAttributes("a=1,b=2,a=3"), ElementsAre(Pair("b", "2"), Pair("a", "3")));
}

TEST(ResourceTest, DefaultsDoNotReplaceWhatIsSaid) {
  TextAttributes attributes = {{"a", "1"}};
  AddDefault("a", "2", &attributes);
  AddDefault("b", "3", &attributes);
  AddDefault("c", "", &attributes);
  EXPECT_THAT(attributes, ElementsAre(Pair("a", "1"), Pair("b", "3")));
}

TEST(ResourceTest, BytesAreThoseOfTheProtocol) {
  internal::otlp::Resource parsed;
  ASSERT_TRUE(parsed.ParseFromString(Resource({{"a", "1"}, {"host.name", "h\xff"}}).bytes));
  ASSERT_EQ(parsed.attributes_size(), 2);
  EXPECT_EQ(parsed.attributes(0).key(), "a");
  EXPECT_EQ(parsed.attributes(0).value().string_value(), "1");
  EXPECT_EQ(parsed.attributes(1).value().string_value(), "h\\xff");
}

}  // namespace
}  // namespace expertmesh::trace
