#include "client/cpp/command/bias_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temp_path.h"

namespace expertmesh::command {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class BiasFileTest : public testing::Test {
 protected:
  // What ReadBias says of a file with this text.
  absl::StatusOr<client::Bias> Read(const std::string& text) {
    std::ofstream(path_) << text;
    return ReadBias(path_);
  }
  void ExpectRefused(const std::string& text, const std::string& words) {
    const absl::Status status = Read(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words)) << text;
  }

  const std::string path_ = TempPath(".json");
};

TEST_F(BiasFileTest, EveryBitComesBack) {
  const float third = 1.0f / 3;
  client::Bias bias;
  bias.epoch = std::numeric_limits<uint64_t>::max();
  bias.outline = "abc";
  bias.layers = {{2, {third, -0.0f, std::numeric_limits<float>::denorm_min()}},
                 {7, {std::numeric_limits<float>::max(), -third, 16777217.0f}}};
  ASSERT_TRUE(WriteBias(path_, bias).ok());
  const absl::StatusOr<client::Bias> read = ReadBias(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->epoch, bias.epoch);
  EXPECT_EQ(read->outline, "abc");
  ASSERT_EQ(read->layers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->layers[i].layer, bias.layers[i].layer);
    EXPECT_EQ(read->layers[i].values, bias.layers[i].values);
  }
  EXPECT_TRUE(std::signbit(read->layers[0].values[1]));
}

TEST_F(BiasFileTest, WholeNumbersAreNumbersToo) {
  const auto bias =
      Read(R"({"outline": "abc", "epoch": 0, "layers": [{"layer": 1, "values": [1, -2]}]})");
  ASSERT_TRUE(bias.ok()) << bias.status();
  EXPECT_THAT(bias->layers[0].values, ElementsAre(1, -2));
}

TEST_F(BiasFileTest, WhatIsNoBiasIsRefused) {
  const auto with_layers = [](const std::string& layers) {
    return R"({"outline": "abc", "epoch": 3, "layers": )" + layers + "}";
  };
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {R"({"outline": "abc", "epoch": 3, "lay)", ""},
           {"", ""},
           {R"({"model_type": "mixtral"})", "outline"},
           {R"({"outline": "", "epoch": 3, "layers": []})", "outline"},
           {R"({"outline": "abc", "layers": []})", "epoch"},
           {R"({"outline": "abc", "epoch": -3, "layers": []})", "epoch"},
           {R"({"outline": "abc", "epoch": 3, "layers": [], "more": 1})", "more"},
           {R"({"outline": "abc", "epoch": 3})", "layers"},
           {with_layers(R"([{"values": [1]}])"), "layer"},
           {with_layers(R"([{"layer": 1}])"), "values"},
           {with_layers(R"([{"layer": -1, "values": [1]}])"), "layer"},
           {with_layers(R"([{"layer": 1, "values": [1, NaN]}])"), "values[1]"},
           {with_layers(R"([{"layer": 1, "values": [1e39]}])"), "values[0]"},
           {with_layers(R"([{"layer": 1, "values": ["1"]}])"), "values[0]"},
           {with_layers(R"([{"layer": 1, "values": [1], "more": 1}])"), "more"},
           {with_layers(R"([{"layer": 1, "values": [1]}, {"layer": 1, "values": [1]}])"),
            "layer is 1 after 1"},
           {with_layers(R"([{"layer": 2, "values": [1]}, {"layer": 1, "values": [1]}])"),
            "layer is 1 after 2"}}) {
    ExpectRefused(text, words);
  }
}

TEST_F(BiasFileTest, AFileThatIsNotThereIsNamed) {
  const absl::Status status = ReadBias("/nowhere/bias.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/bias.json"));
}

TEST_F(BiasFileTest, WhatCannotBeWrittenIsNamed) {
  const absl::Status status = WriteBias("/nowhere/bias.json", client::Bias());
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/bias.json"));
}

}  // namespace
}  // namespace expertmesh::command
