#include "client/cpp/command/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temp_path.h"

namespace expertmesh::command {
namespace {

using testing::HasSubstr;

// Two copies of expert 0, one of expert 1.
constexpr char kLayer[] =
    R"("copies_per_expert": [2, 1], "copy_nodes": [0, 1, 1], "copy_shares": [0.25, 0.75, 1])";

class PlanFileTest : public testing::Test {
 protected:
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  // What ReadPlan says of a file with this text.
  void ExpectRefused(const std::string& text, const std::string& words) {
    Write(text);
    const absl::Status status = ReadPlan(path_, "abc").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words)) << text;
  }

  const std::string path_ = TempPath(".json");
};

TEST_F(PlanFileTest, EveryBitComesBack) {
  const float third = 1.0f / 3;
  client::PlacementPlan plan;
  plan.nodes = {"a", "b:1"};
  plan.layers = {{2, {2, 1}, {0, 1, 1}, {third, 1 - third, 1}}, {7, {1}, {0}, {1}}};
  ASSERT_TRUE(WritePlan(path_, "abc", plan).ok());
  const auto read = ReadPlan(path_, "abc");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->nodes, plan.nodes);
  ASSERT_EQ(read->layers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->layers[i].layer, plan.layers[i].layer);
    EXPECT_EQ(read->layers[i].copies_per_expert, plan.layers[i].copies_per_expert);
    EXPECT_EQ(read->layers[i].copy_nodes, plan.layers[i].copy_nodes);
    EXPECT_EQ(read->layers[i].copy_shares, plan.layers[i].copy_shares);
  }
}

TEST_F(PlanFileTest, APlanForAnotherModelIsRefused) {
  ASSERT_TRUE(WritePlan(path_, "abc", {{"a"}, {}}).ok());
  const absl::Status status = ReadPlan(path_, "abd").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  for (const std::string words : {path_.c_str(), "another model", "abc", "abd"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
}

TEST_F(PlanFileTest, WhatIsNoPlanIsRefused) {
  const auto with = [](const std::string& layers, const std::string& nodes = R"(["a", "b"])") {
    return R"({"outline": "abc", "nodes": )" + nodes + R"(, "layers": [)" + layers + "]}";
  };
  const auto layer = [&with](const std::string& copies, const std::string& nodes,
                             const std::string& shares) {
    return with(R"({"layer": 1, "copies_per_expert": )" + copies + R"(, "copy_nodes": )" + nodes +
                R"(, "copy_shares": )" + shares + "}");
  };
  const std::string good = std::string(R"({"layer": 1, )") + kLayer + "}";
  Write(with(good));
  ASSERT_TRUE(ReadPlan(path_, "abc").ok()) << ReadPlan(path_, "abc").status();
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {with(good).substr(0, 60), ""},
           {"", ""},
           {R"({"outline": "abc", "epoch": 3, "layers": []})", "epoch"},
           {R"({"outline": "", "nodes": [], "layers": []})", "outline"},
           {R"({"outline": "abc", "nodes": []})", "layers"},
           {with(good, R"(["a", "a"])"), "'a' twice"},
           {with(good, R"(["a", ""])"), "empty"},
           {with(good, R"(["a"])"), "layer 1 has a copy on node 1; there are 1 nodes"},
           {with(good + ", " + good), "layer is 1 after 1"},
           {layer("[0]", "[]", "[]"), "copies_per_expert[0] is 0"},
           {layer("[1]", "[0, 1]", "[1]"), "copy_nodes has 2"},
           {layer("[1]", "[0]", "[]"), "copy_shares 0"},
           {layer("[-1]", "[0]", "[1]"), "copies_per_expert"},
           {layer("[2]", "[1, 1]", "[0.5, 0.5]"), "copy_nodes[1] of expert 0"},
           {layer("[2]", "[1, 0]", "[0.5, 0.5]"), "copy_nodes[1] of expert 0"},
           {layer("[2]", "[0, 1]", "[-0.5, 0.5]"), "copy_shares[0] is -0.5"},
           {layer("[2]", "[0, 1]", "[0.5, 1.5]"), "copy_shares[1] is 1.5"},
           {layer("[2]", "[0, 1]", "[0.5, NaN]"), "copy_shares[1]"}}) {
    ExpectRefused(text, words);
  }
}

TEST_F(PlanFileTest, AFileThatIsNoPlanIsToldWhatItOughtToBe) {
  Write(R"({"model_type": "mixtral"})");
  EXPECT_THAT(std::string(ReadPlan(path_, "abc").status().message()),
              HasSubstr("no plan of `expertmesh placement plan --out`"));
}

TEST_F(PlanFileTest, FilesThatAreNotThereAreNamed) {
  const absl::Status status = ReadPlan("/nowhere/plan.json", "abc").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/plan.json"));
  EXPECT_THAT(std::string(WritePlan("/nowhere/plan.json", "abc", {}).message()),
              HasSubstr("/nowhere/plan.json"));
}

}  // namespace
}  // namespace expertmesh::command
