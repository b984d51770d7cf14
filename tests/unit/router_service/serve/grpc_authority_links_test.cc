// GrpcAuthorityLinks against a GrpcServer that plays the authority.
#include "router_service/serve/grpc_authority_links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/net/grpc_server.h"
#include "tests/support/too_long.h"

namespace expertmesh::serve {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr uint64_t kTerm = 7;

class FakeAuthority {
 public:
  FakeAuthority() {
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.streams = {
        {"/expertmesh.internal.v1.Authority/Follow",
         [this](std::shared_ptr<net::ServerStreamSink> sink, const CallContextPtr& context) {
           absl::MutexLock lock(&mutex_);
           followers_.push_back(sink);
           follower_peers_.push_back(context->peer());
           return std::make_unique<FollowHandler>(answer_, std::move(sink));
         }}};
    spec.unary = {{"/expertmesh.internal.v1.Authority/ReportLoad",
                   [this](Frame, const CallContextPtr& context, net::UnaryResponder respond) {
                     absl::MutexLock lock(&mutex_);
                     report_peers_.push_back(context->peer());
                     if (report_status_.ok()) {
                       respond(Frame());
                     } else {
                       respond(report_status_);
                     }
                   }}};
    auto server = net::GrpcServer::Start(std::move(spec));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    internal::v1::FollowResponse response;
    response.mutable_decision()->set_term(kTerm);
    SetAnswer(response.SerializeAsString());
  }
  ~FakeAuthority() { server_->Shutdown(absl::ZeroDuration()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  void SetAnswer(std::string answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
  }
  void SetReportStatus(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    report_status_ = std::move(status);
  }
  std::vector<std::string> follower_peers() {
    absl::MutexLock lock(&mutex_);
    return follower_peers_;
  }
  std::vector<std::string> report_peers() {
    absl::MutexLock lock(&mutex_);
    return report_peers_;
  }

 private:
  class FollowHandler final : public StreamHandler {
   public:
    FollowHandler(std::string answer, std::shared_ptr<FrameSink> sink)
        : answer_(std::move(answer)), sink_(std::move(sink)) {}
    void OnFrame(Frame) override { sink_->Send(Frame(answer_)).IgnoreError(); }

   private:
    const std::string answer_;
    const std::shared_ptr<FrameSink> sink_;
  };

  absl::Mutex mutex_;
  std::string answer_ ABSL_GUARDED_BY(mutex_);
  // Kept, so that the streams stay open.
  std::vector<std::shared_ptr<FrameSink>> followers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> follower_peers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> report_peers_ ABSL_GUARDED_BY(mutex_);
  absl::Status report_status_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<net::GrpcServer> server_;
};

class GrpcAuthorityLinksTest : public testing::Test, protected balance_control::AuthorityObserver {
 protected:
  std::unique_ptr<balance_control::AuthorityLink> Connect(const std::string& address) {
    internal::v1::FollowRequest request;
    request.set_heartbeat_ms(1000);
    return links_.Connect(address, request, this);
  }

  void OnDecision(internal::v1::Decision decision) override {
    absl::MutexLock lock(&mutex_);
    terms_.push_back(decision.term());
  }
  void OnDisconnected(const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    problems_.push_back(why);
  }

  bool AwaitDecisions(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto heard = [this, count]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return terms_.size() >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&heard), kTooLong);
  }
  absl::Status AwaitProblem() {
    absl::MutexLock lock(&mutex_);
    const auto heard = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !problems_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&heard), kTooLong)) {
      ADD_FAILURE() << "no problem is told";
      return absl::OkStatus();
    }
    return problems_.front();
  }
  size_t problems() {
    absl::MutexLock lock(&mutex_);
    return problems_.size();
  }

  // One report at a time is on its way, so that some of these are left out.
  void ReportUntilArrived(balance_control::AuthorityLink& link, size_t count) {
    const absl::Time give_up = Clock::Real()->Now() + kTooLong;
    while (authority_.report_peers().size() < count && Clock::Real()->Now() < give_up) {
      link.Report({});
      std::this_thread::yield();
    }
    ASSERT_GE(authority_.report_peers().size(), count);
  }

  FakeAuthority authority_;
  FakeClock clock_;
  absl::Mutex mutex_;
  std::vector<uint64_t> terms_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> problems_ ABSL_GUARDED_BY(mutex_);
  net::GrpcRuntime runtime_;
  GrpcAuthorityLinks links_{&runtime_, &clock_};
};

TEST_F(GrpcAuthorityLinksTest, DecisionsAndReportsShareOneConnection) {
  const auto link = Connect(authority_.address());
  ASSERT_TRUE(AwaitDecisions(1));
  ReportUntilArrived(*link, 10);
  ASSERT_EQ(authority_.follower_peers().size(), 1u);
  EXPECT_THAT(authority_.report_peers(), Each(authority_.follower_peers()[0]));
  EXPECT_EQ(problems(), 0u);
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(terms_, Each(kTerm));
}

TEST_F(GrpcAuthorityLinksTest, AReportThatFailsIsToldAndOthersFollow) {
  authority_.SetReportStatus(absl::InvalidArgumentError("of another model"));
  const auto link = Connect(authority_.address());
  ASSERT_TRUE(AwaitDecisions(1));
  ReportUntilArrived(*link, 1);
  EXPECT_EQ(AwaitProblem(), absl::InvalidArgumentError("of another model"));
  authority_.SetReportStatus(absl::OkStatus());
  ReportUntilArrived(*link, 3);
  EXPECT_EQ(authority_.follower_peers().size(), 1u);
}

TEST_F(GrpcAuthorityLinksTest, SilenceOfFourHeartbeatsEndsAStreamThatIsOpenedAgain) {
  const auto link = Connect(authority_.address());
  ASSERT_TRUE(AwaitDecisions(1));
  clock_.Advance(absl::Seconds(4));
  const absl::Status why = AwaitProblem();
  EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(why.message()), HasSubstr("nothing heard for 4s"));
  clock_.Advance(absl::Milliseconds(100));  // The first pause has begun by now.
  ASSERT_TRUE(AwaitDecisions(2));
  ReportUntilArrived(*link, 1);
  EXPECT_THAT(authority_.report_peers(), Each(authority_.follower_peers()[1]));
}

TEST_F(GrpcAuthorityLinksTest, AnAnswerThatIsNoDecisionEndsTheStream) {
  authority_.SetAnswer("\xff");
  const auto link = Connect(authority_.address());
  EXPECT_EQ(AwaitProblem().code(), absl::StatusCode::kInternal);
}

TEST_F(GrpcAuthorityLinksTest, AnAddressThatMakesNoSenseIsTold) {
  const auto link = Connect("nonsense");
  EXPECT_EQ(AwaitProblem().code(), absl::StatusCode::kInvalidArgument);
  link->Report({});
}

}  // namespace
}  // namespace expertmesh::serve
