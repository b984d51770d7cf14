// Requests that have many bytes beside their tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "router_service/router.h"
#include "router_service/serve/forward_service.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kMostTokens = 1000;

class RouterLargeRequestTest : public RouterTest {
 protected:
  void SetUp() override {
    RouterOptions options;
    options.max_tokens_in_flight = kMostTokens;
    StartRouter(options);
    AddNode("a:1", {0, 1, 2, 3, 4, 5});
    Connect();
  }

  // A good request, with `count` bytes more in a field that no one knows.
  Answer ForwardWith(size_t count, const std::vector<float>& rows) {
    v1::ForwardRequest request;
    request.set_request_id(5);
    request.set_layer(1);
    request.set_return_routing(true);
    request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(
        2000, std::string(count, 'x'));
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows), &answer, &done);
    done.WaitForNotification();
    return answer;
  }
};

TEST_F(RouterLargeRequestTest, IsReadByThePoolAndAnswered) {
  const std::vector<float> rows = RandomRows(1, 3);
  for (const size_t count :
       {serve::kQuickBytes - 100, serve::kQuickBytes, 4 * serve::kQuickBytes}) {
    const Answer answer = ForwardWith(count, rows);
    ExpectRight(1, rows, answer);
    EXPECT_EQ(answer.response.request_id(), 5u);
  }
}

TEST_F(RouterLargeRequestTest, IsRefusedBeyondWhatTokensNeed) {
  const Answer answer = ForwardWith(serve::MostOtherBytes(kMostTokens), RandomRows(1, 3));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status.message()),
              AllOf(HasSubstr("ForwardRequest has more than"),
                    HasSubstr(std::to_string(serve::MostOtherBytes(kMostTokens))),
                    HasSubstr("token_ids and group_sizes of 1000 tokens")));
  EXPECT_EQ(answer.response.request_id(), 5u);
}

TEST_F(RouterLargeRequestTest, TooManyAtOnceAreRefusedAndAllAreAnswered) {
  constexpr size_t kRequests = 4 * serve::kMostReads;
  const std::vector<float> rows = RandomRows(1, 1);
  v1::ForwardRequest request;
  request.set_layer(1);
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(
      2000, std::string(4 * serve::kQuickBytes, 'x'));
  const Frame frame = Encode(request, rows);
  std::vector<Answer> answers(kRequests);
  std::vector<absl::Notification> done(kRequests);
  for (size_t i = 0; i < kRequests; ++i) {
    Send(frame, &answers[i], &done[i]);
  }
  for (size_t i = 0; i < kRequests; ++i) {
    done[i].WaitForNotification();
    if (!answers[i].status.ok()) {
      EXPECT_EQ(answers[i].status.code(), absl::StatusCode::kResourceExhausted);
    }
  }
  EXPECT_TRUE(answers.front().status.ok()) << answers.front().status;
}

}  // namespace
}  // namespace expertmesh::router
