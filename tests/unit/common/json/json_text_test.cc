#include "common/json/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

namespace expertmesh {
namespace {

using testing::HasSubstr;

TEST(JsonTextTest, AKeyThatStandsTwiceIsRefusedWhereverItIs) {
  for (const std::string text : {R"({"a": 1, "a": 2})", R"({"x": [{"a": {"b": 1}, "a": 1}]})",
                                 R"([{"a": 1}, {"a": 1, "a": 1}])"}) {
    const auto json = ParseJson(text, "f.json");
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(json.status().message()), HasSubstr("key 'a' appears twice"));
  }
  for (const std::string text : {R"({"a": {"a": 1}})", R"([{"a": 1}, {"a": 1}])", "7"}) {
    EXPECT_TRUE(ParseJson(text, "f.json").ok()) << text;
  }
}

TEST(JsonTextTest, WhatIsNoJsonIsRefusedWithItsPlace) {
  for (const std::string text : {"", "{", R"({"a": nan})", "{} {}", R"({"a": 1e999})"}) {
    const auto json = ParseJson(text, "f.json");
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(json.status().message()), HasSubstr("f.json: not valid JSON"));
  }
}

TEST(JsonTextTest, WordsOfPythonAreNumbersWhereTheyAreAccepted) {
  const std::string text = R"({"a": NaN, "b": [Infinity,-Infinity], "c": "NaN, \"Infinity"})";
  EXPECT_FALSE(ParseJson(text, "f.json").ok());
  const auto json = ParseJson(text, "f.json", NonFinite::kAccept);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_TRUE(std::isnan((*json)["a"].get<double>()));
  EXPECT_EQ((*json)["b"][0].get<double>(), std::numeric_limits<double>::infinity());
  EXPECT_EQ((*json)["b"][1].get<double>(), -std::numeric_limits<double>::infinity());
  EXPECT_EQ((*json)["c"].get<std::string>(), "NaN, \"Infinity");
}

TEST(JsonTextTest, WhatOnlyLooksLikeAWordOfPythonIsNoJson) {
  for (const std::string text : {R"({"a": nan})", R"({"a": NaNs})", R"({NaN: 1, "a": 2})",
                                 R"({"a": -NaN})", R"({"a": Infinit})", "{\"a\x7f\": NaN}"}) {
    EXPECT_FALSE(ParseJson(text, "f.json", NonFinite::kAccept).ok()) << text;
  }
  // At the same byte as without the word.
  const auto json = ParseJson(R"({"a": NaN, "b": x})", "f.json", NonFinite::kAccept);
  EXPECT_THAT(std::string(json.status().message()), HasSubstr("at byte 17"));
}

// In the square of the members this would take hours.
TEST(JsonTextTest, AnObjectMayHaveManyMembers) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", "\"member", i, "\":{\"a\":[", i, "]}");
  }
  const auto json = ParseJson(text + "}", "f.json");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->size(), 300'000u);
}

class ReadSmallFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/json_text_XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~ReadSmallFileTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(ReadSmallFileTest, ReadsAFileUpToItsLimit) {
  const std::string path = folder_ + "/file";
  std::ofstream(path) << "text";
  EXPECT_EQ(*ReadSmallFile(path, 4), "text");
  EXPECT_EQ(ReadSmallFile(path, 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadSmallFile(folder_ + "/none", 4).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ReadSmallFileTest, APipeOrAFolderIsRefusedAtOnce) {
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, folder_}) {
    const auto text = ReadSmallFile(path, 4);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(text.status().message()), HasSubstr("not a regular file"));
  }
}

}  // namespace
}  // namespace expertmesh
