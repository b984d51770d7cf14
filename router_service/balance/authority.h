// Who decides on bias and placement: the seam, and its form as a flag.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_H_

#include <string>
#include <utility>

namespace expertmesh::balance_control {

struct Leader {
  // This router; else the one at `address`.
  bool self = true;
  std::string address;

  friend bool operator==(const Leader&, const Leader&) = default;
};

// Thread-safe.
class Authority {
 public:
  virtual ~Authority() = default;
  // Must not block; may be another one at each call.
  virtual Leader Now() const = 0;
};

// Always the same.
class FlagAuthority final : public Authority {
 public:
  // `follow`: address of the router to follow; empty: this one decides.
  explicit FlagAuthority(std::string follow) : leader_{follow.empty(), std::move(follow)} {}
  Leader Now() const override { return leader_; }

 private:
  const Leader leader_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_H_
