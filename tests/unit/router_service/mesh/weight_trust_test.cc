#include "router_service/mesh/weight_trust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/checkpoint/expert_digest.h"
#include "common/model/expert_slice.h"
#include "router_service/mesh/weight_verifier.h"
#include "tests/support/fake_checkpoint.h"

namespace expertmesh::mesh {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// What nodes hold of layer 1: digests by expert, for each node.
class Holders {
 public:
  Holders& Node(NodeIndex node, const std::map<uint32_t, uint64_t>& digests,
                IntermediateSlice slice = {}) {
    v1::HostedExperts entry;
    entry.set_layer(1);
    entry.set_slice_index(slice.index);
    entry.set_slice_count(slice.count);
    for (const auto& [expert, digest] : digests) {
      entry.add_experts(expert);
      entry.add_digests(digest);
    }
    entries_[node] = std::move(entry);
    return *this;
  }
  Holders& Silent(NodeIndex node) {
    entries_[node].clear_digests();
    return *this;
  }

  template <typename Judge>
  auto AskedBy(Judge judge) const {
    std::map<NodeIndex, const v1::HostedExperts*> pointers;
    std::vector<NodeHoldings> nodes;
    for (const auto& [node, entry] : entries_) {
      const v1::HostedExperts*& pointer = pointers[node] = &entry;
      nodes.push_back({node, "node" + std::to_string(node), absl::MakeConstSpan(&pointer, 1)});
    }
    return judge(nodes);
  }
  WeightTrust::Verdict Judge(WeightTrust* trust) const {
    return AskedBy([trust](const auto& nodes) { return trust->Judge(nodes); });
  }

 private:
  std::map<NodeIndex, v1::HostedExperts> entries_;
};

// "node/expert" of each.
std::vector<std::string> Names(const std::vector<DamagedExpert>& damaged) {
  std::vector<std::string> names;
  for (const DamagedExpert& copy : damaged) {
    names.push_back(std::to_string(copy.node) + "/" + std::to_string(copy.expert));
  }
  return names;
}

class WeightTrustTest : public testing::Test {
 protected:
  static checkpoint::ExpertSliceId Expert(uint32_t expert) { return {1, expert, {0, 1}}; }

  const FakeCheckpoint checkpoint_;
  WeightTrust trust_{&checkpoint_.model()};
};

TEST_F(WeightTrustTest, TheCheckpointDecides) {
  Holders holders;
  holders.Node(0, {{0, 10}, {2, 12}}).Node(1, {{0, 10}, {2, 99}});
  WeightTrust::Verdict verdict = holders.Judge(&trust_);
  EXPECT_THAT(verdict.disputed, ElementsAre(Expert(2)));
  EXPECT_THAT(verdict.unverified, ElementsAre(Expert(0)));
  // Who was there first is used until then.
  EXPECT_THAT(Names(verdict.damaged), ElementsAre("1/2"));
  EXPECT_THAT(verdict.damaged[0].reason, HasSubstr("not those of node0"));
  EXPECT_THAT(verdict.damaged[0].reason, HasSubstr("being asked"));

  EXPECT_TRUE(trust_.Learn(Expert(2), 99));
  EXPECT_FALSE(trust_.Learn(Expert(0), 10));
  verdict = holders.Judge(&trust_);
  EXPECT_THAT(Names(verdict.damaged), ElementsAre("0/2"));
  EXPECT_THAT(verdict.damaged[0].reason, HasSubstr("this router's checkpoint"));
  EXPECT_THAT(verdict.disputed, IsEmpty());
  EXPECT_THAT(verdict.unverified, IsEmpty());
}

TEST_F(WeightTrustTest, TheOnlyHolderIsDamagedToo) {
  Holders holders;
  holders.Node(0, {{0, 10}});
  EXPECT_THAT(holders.Judge(&trust_).damaged, IsEmpty());
  EXPECT_TRUE(trust_.Learn(Expert(0), 11));
  EXPECT_THAT(Names(holders.Judge(&trust_).damaged), ElementsAre("0/0"));
}

TEST_F(WeightTrustTest, WhoIsInUseStaysSoUntilTheCheckpointHasSpoken) {
  Holders holders;
  holders.Node(5, {{0, 10}});
  EXPECT_THAT(holders.Judge(&trust_).damaged, IsEmpty());
  holders.Node(1, {{0, 11}});  // Before it in placement order.
  EXPECT_THAT(Names(holders.Judge(&trust_).damaged), ElementsAre("1/0"));
  // It cannot be read: that stays so, and both are named.
  EXPECT_TRUE(trust_.Learn(Expert(0), std::nullopt));
  const WeightTrust::Verdict verdict = holders.Judge(&trust_);
  EXPECT_THAT(Names(verdict.damaged), ElementsAre("1/0"));
  EXPECT_THAT(verdict.damaged[0].reason, HasSubstr("not those of node5, in use before"));
  EXPECT_THAT(verdict.disputed, IsEmpty());
}

TEST_F(WeightTrustTest, MoreThanHalfOfThreeAreBelieved) {
  Holders holders;
  holders.Node(0, {{0, 10}});
  holders.Judge(&trust_);
  trust_.Learn(Expert(0), std::nullopt);
  holders.Node(1, {{0, 11}}).Node(2, {{0, 11}});
  const WeightTrust::Verdict verdict = holders.Judge(&trust_);
  EXPECT_THAT(Names(verdict.damaged), ElementsAre("0/0"));
  EXPECT_THAT(verdict.damaged[0].reason, HasSubstr("node1, node2, which are more than half"));
}

TEST_F(WeightTrustTest, SlicesAreComparedWithTheSameSlice) {
  Holders holders;
  holders.Node(0, {{0, 10}}, {0, 2}).Node(1, {{0, 11}}, {1, 2}).Node(2, {{0, 12}}, {1, 2});
  const WeightTrust::Verdict verdict = holders.Judge(&trust_);
  EXPECT_THAT(Names(verdict.damaged), ElementsAre("2/0"));
  EXPECT_THAT(verdict.disputed, ElementsAre(checkpoint::ExpertSliceId{1, 0, {1, 2}}));
  EXPECT_THAT(verdict.unverified, ElementsAre(checkpoint::ExpertSliceId{1, 0, {0, 2}}));
}

TEST_F(WeightTrustTest, SlicesThatTheModelCannotHaveAreLeftOut) {
  // The intermediate size is 4.
  for (const IntermediateSlice slice : {IntermediateSlice{0, 0}, IntermediateSlice{2, 2},
                                        IntermediateSlice{0, 3}, IntermediateSlice{0, 8}}) {
    Holders holders;
    holders.Node(0, {{0, 10}}, slice).Node(1, {{0, 11}}, slice);
    const WeightTrust::Verdict verdict = holders.Judge(&trust_);
    EXPECT_THAT(verdict.damaged, IsEmpty());
    EXPECT_THAT(verdict.disputed, IsEmpty());
    EXPECT_THAT(verdict.unverified, IsEmpty());
  }
}

TEST_F(WeightTrustTest, WhoSaysNoDigestsIsBelievedAndNamed) {
  Holders holders;
  holders.Node(0, {{0, 10}, {77, 1}}).Node(1, {{0, 11}}).Silent(1);
  const WeightTrust::Verdict verdict = holders.Judge(&trust_);
  EXPECT_THAT(verdict.damaged, IsEmpty());
  EXPECT_THAT(verdict.silent, ElementsAre("node1"));
  EXPECT_THAT(verdict.unverified, ElementsAre(Expert(0)));  // The model has no expert 77.
}

class WeightVerifierTest : public testing::Test {
 protected:
  uint64_t Right(uint32_t expert, IntermediateSlice slice = {}) const {
    return checkpoint::DigestOf(SliceOf(*checkpoint_->Expert(1, expert), slice));
  }
  static std::vector<std::string> Judge(WeightVerifier* verifier, const Holders& holders) {
    return Names(holders.AskedBy([verifier](const auto& nodes) { return verifier->Judge(nodes); }));
  }

  const std::shared_ptr<FakeCheckpoint> checkpoint_ = std::make_shared<FakeCheckpoint>();
  FakeClock clock_;
};

TEST_F(WeightVerifierTest, ReadsWhatIsDisputedAtOnceAndSaysSo) {
  absl::Notification changed;
  WeightVerifier verifier(checkpoint_, 0, &clock_, [&] { changed.Notify(); });
  Holders holders;
  holders.Node(0, {{0, Right(0)}, {2, 5}}).Node(1, {{0, Right(0)}, {2, Right(2)}});
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("1/2"));
  changed.WaitForNotification();
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("0/2"));
}

TEST_F(WeightVerifierTest, AFileThatChangedMeanwhileTellsNothing) {
  absl::Notification told;
  checkpoint_->ShortenFiles([&] { told.Notify(); });
  WeightVerifier verifier(checkpoint_, 0, &clock_, [] {});
  Holders holders;
  holders.Node(0, {{2, 5}}).Node(1, {{2, Right(2)}});
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("1/2"));
  told.WaitForNotification();
  verifier.Stop();
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("1/2"));
}

TEST_F(WeightVerifierTest, ReadsTheOthersAtABoundedRate) {
  absl::Mutex mutex;
  int changes = 0;  // Guarded by `mutex`.
  // An expert is 3 x 4 x 8 float32: 384 bytes, so two seconds each.
  WeightVerifier verifier(checkpoint_, 192, &clock_, [&] {
    absl::MutexLock lock(&mutex);
    ++changes;
  });
  const auto await = [&](int count) {
    absl::MutexLock lock(&mutex);
    const auto reached = [&] { return changes >= count; };
    mutex.Await(absl::Condition(&reached));
  };
  Holders holders;
  holders.Node(0, {{0, 7}, {1, 8}, {2, Right(2)}});
  EXPECT_THAT(Judge(&verifier, holders), IsEmpty());
  await(1);
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("0/0"));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Milliseconds(1999));
  clock_.AwaitWaiters(1);
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("0/0"));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Milliseconds(1));
  await(2);
  EXPECT_THAT(Judge(&verifier, holders), ElementsAre("0/0", "0/1"));
}

}  // namespace
}  // namespace expertmesh::mesh
