#include "common/wire/peer_message.h"

#include <gtest/gtest.h>

#include <string>

#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/node.pb.h"

namespace expertmesh {
namespace {

TEST(PeerMessageTest, TextsOfAMessageAndOfThoseWithinArePrintable) {
  v1::Topology topology;
  topology.set_epoch(7);
  topology.set_lookup_error("line\nline");
  v1::NodeDescription& node = *topology.add_nodes()->mutable_description();
  node.set_node_id("\x1b[31mred");
  node.set_message(std::string(5'000'000, 'x'));
  node.set_family("mixtral");
  node.mutable_memory()->set_weights_bytes(3);
  MakeTextsPrintable(&topology, 100);
  EXPECT_EQ(topology.epoch(), 7u);
  EXPECT_EQ(topology.lookup_error(), "line\\nline");
  EXPECT_EQ(node.node_id(), "\\x1b[31mred");
  EXPECT_EQ(node.message(), std::string(100, 'x') + "... (cut, 5000000 bytes)");
  EXPECT_EQ(node.family(), "mixtral");
  EXPECT_EQ(node.memory().weights_bytes(), 3u);
}

}  // namespace
}  // namespace expertmesh
