#include "common/wire/message_size.h"

#include <gtest/gtest.h>

#include <string>

#include "expertmesh/internal/v1/expert.pb.h"
#include "expertmesh/v1/router.pb.h"

namespace expertmesh {
namespace {

TEST(MessageSizeTest, NamesTheFieldThatHasTheMost) {
  internal::v1::ComputeRequest request;
  request.set_batch_id(7);
  (*request.mutable_extensions())["mine"].set_raw(std::string(9'000'000, 'x'));
  const std::string text = TooLargeText({&request, "hidden_states", 4000, 9'004'100}, 8'388'608);
  EXPECT_EQ(text.substr(0, 62), "9004100 bytes, the limit is 8388608; extensions alone has 9000");
  // Whose message it is.
  EXPECT_EQ(request.extensions().at("mine").raw().size(), 9'000'000u);
}

TEST(MessageSizeTest, NamesTheTensorToo) {
  v1::ForwardRequest request;
  request.add_token_ids(7);
  EXPECT_EQ(TooLargeText({&request, "hidden_states", 4000, 4010}, 100),
            "4010 bytes, the limit is 100; hidden_states alone has 4000 of them");
  for (int i = 0; i < 5000; ++i) {
    request.add_token_ids(1);
  }
  EXPECT_EQ(TooLargeText({&request, "hidden_states", 4000, 9010}, 100),
            "9010 bytes, the limit is 100; token_ids alone has 5004 of them");
}

}  // namespace
}  // namespace expertmesh
