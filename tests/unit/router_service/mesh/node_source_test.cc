#include "router_service/mesh/node_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "router_service/mesh/dns_nodes.h"
#include "tests/support/too_long.h"

namespace expertmesh::mesh {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Addresses = std::vector<std::string>;

absl::StatusOr<Addresses> NeverCalled(const std::string& host) {
  ADD_FAILURE() << host;
  return Addresses{};
}

TEST(ResolveAddressesTest, ListIsSortedWithoutDuplicates) {
  const auto addresses = ResolveAddresses(" b:2,a:1 , b:2,unix:/tmp/c", NeverCalled);
  ASSERT_TRUE(addresses.ok());
  EXPECT_THAT(*addresses, ElementsAre("a:1", "b:2", "unix:/tmp/c"));
}

TEST(ResolveAddressesTest, NameStandsForAllItsAddresses) {
  const auto addresses =
      ResolveAddresses("dns:///nodes.mesh:7500,z:1", [](const std::string& host) {
        EXPECT_EQ(host, "nodes.mesh");
        return absl::StatusOr<Addresses>(Addresses{"10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.2"});
      });
  ASSERT_TRUE(addresses.ok());
  EXPECT_THAT(*addresses, ElementsAre("10.0.0.1:7500", "10.0.0.2:7500", "[fd00::1]:7500", "z:1"));
}

TEST(ResolveAddressesTest, NonsenseIsNamed) {
  for (const std::string spec : {"", "a:1,,b:2", "dns:///name", "a:1,nonsense", "dns://name:1"}) {
    EXPECT_EQ(ResolveAddresses(spec, NeverCalled).status().code(),
              absl::StatusCode::kInvalidArgument)
        << spec;
  }
  EXPECT_THAT(ResolveAddresses("a:1,nonsense", NeverCalled).status().ToString(),
              HasSubstr("nonsense"));
}

TEST(ResolveAddressesTest, SystemKnowsLocalhostAndNothingInvalid) {
  const auto addresses = ResolveAddresses("dns:///localhost:7500", SystemLookup);
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, testing::Contains(testing::AnyOf("127.0.0.1:7500", "[::1]:7500")));
  const absl::Status unknown = SystemLookup("no-such-host.invalid").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("no-such-host.invalid"));
}

// Answers of a name server that the test writes.
class FakeDns {
 public:
  void Set(absl::StatusOr<Addresses> answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
  }
  HostLookup lookup() {
    return [this](const std::string&) {
      absl::MutexLock lock(&mutex_);
      ++lookups_;
      return answer_;
    };
  }
  bool AwaitLookups(int count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return lookups_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

 private:
  absl::Mutex mutex_;
  int lookups_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::StatusOr<Addresses> answer_ ABSL_GUARDED_BY(mutex_) = Addresses{};
};

TEST(NodeSourceTest, TellsChangesAndKeepsTheListWhenDnsFails) {
  FakeClock clock;
  FakeDns dns;
  dns.Set(Addresses{"10.0.0.1"});
  absl::Mutex mutex;
  std::vector<Addresses> told;
  std::vector<std::string> outcomes;
  auto source = MakeNodeSource(
      "dns:///nodes:1", {.interval = absl::Seconds(5), .clock = &clock, .lookup = dns.lookup()},
      [&](const Addresses& addresses) {
        absl::MutexLock lock(&mutex);
        told.push_back(addresses);
      },
      [&](const absl::Status& status) {
        absl::MutexLock lock(&mutex);
        outcomes.emplace_back(status.message());
      });
  ASSERT_TRUE(source.ok());
  const auto times_told = [&] {
    absl::MutexLock lock(&mutex);
    return told.size();
  };
  // The source waits on the clock between look-ups, so look-ups are done when it waits again.
  const auto look_up_again = [&](int lookups) {
    clock.AwaitWaiters(1);
    clock.Advance(absl::Seconds(5));
    ASSERT_TRUE(dns.AwaitLookups(lookups));
  };
  ASSERT_TRUE(dns.AwaitLookups(1));
  look_up_again(2);  // The same again is no news.
  dns.Set(absl::UnavailableError("no name server"));
  look_up_again(3);
  look_up_again(4);
  EXPECT_EQ(times_told(), 1u);
  dns.Set(Addresses{"10.0.0.2", "10.0.0.1"});
  look_up_again(5);
  const auto second = [&] { return told.size() == 2; };
  absl::MutexLock lock(&mutex);
  ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&second), kTooLong));
  EXPECT_THAT(told[0], ElementsAre("10.0.0.1:1"));
  EXPECT_THAT(told[1], ElementsAre("10.0.0.1:1", "10.0.0.2:1"));
  EXPECT_THAT(outcomes, ElementsAre("no name server", ""));  // Each once.
}

TEST(NodeSourceTest, ListIsToldOnce) {
  FakeClock clock;
  int told = 0;
  {
    auto source = MakeNodeSource(
        "b:2,a:1", {.clock = &clock, .lookup = NeverCalled},
        [&](const Addresses& addresses) {
          ++told;
          EXPECT_THAT(addresses, ElementsAre("a:1", "b:2"));
        },
        nullptr);
    ASSERT_TRUE(source.ok());
    EXPECT_EQ(told, 1);  // Before it returns.
    clock.Advance(absl::Hours(1));
  }
  EXPECT_EQ(told, 1);
}

TEST(NodeSourceTest, NonsenseIsRefusedAtOnce) {
  EXPECT_EQ(MakeNodeSource("nonsense", {.lookup = NeverCalled}, nullptr, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::mesh
