#include "common/net/peer_places.h"

#include <algorithm>
#include <utility>

namespace expertmesh::net {
namespace {

// "ipv4:10.0.0.7" of "ipv4:10.0.0.7:41234".
std::string HostOf(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

}  // namespace

PeerPlaces::Outcome PeerPlaces::Take(const std::string& peer, uint64_t id) {
  Outcome outcome;
  if (taken_ >= most_) {
    outcome.displaced = Displace(peer);
    if (!outcome.displaced.has_value()) {
      return outcome;
    }
  }
  Host& host = hosts_[HostOf(peer)];
  host.connections[peer].insert(id);
  ++host.taken;
  ++taken_;
  outcome.taken = true;
  return outcome;
}

void PeerPlaces::Leave(const std::string& peer, uint64_t id) {
  const auto host = hosts_.find(HostOf(peer));
  if (host == hosts_.end()) {
    return;
  }
  const auto connection = host->second.connections.find(peer);
  if (connection == host->second.connections.end() || connection->second.erase(id) == 0) {
    return;
  }
  --taken_;
  if (connection->second.empty()) {
    host->second.connections.erase(connection);
  }
  if (--host->second.taken == 0) {
    hosts_.erase(host);
  }
}

std::optional<uint64_t> PeerPlaces::Displace(const std::string& peer) {
  if (hosts_.empty()) {
    return std::nullopt;
  }
  const auto own = hosts_.find(HostOf(peer));
  const auto most = std::max_element(
      hosts_.begin(), hosts_.end(),
      [](const auto& a, const auto& b) { return a.second.taken < b.second.taken; });
  // Who gives way keeps at least as many as the other then has: else they would take turns.
  const size_t owned = own == hosts_.end() ? 0 : own->second.taken;
  const bool from_other = most->second.taken > owned + 1;
  const auto host = from_other ? most : own;
  if (host == hosts_.end()) {
    return std::nullopt;
  }
  auto& connections = host->second.connections;
  const auto greediest = std::max_element(
      connections.begin(), connections.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  if (!from_other) {
    const auto mine = connections.find(peer);
    if (greediest->second.size() <= (mine == connections.end() ? 0 : mine->second.size()) + 1) {
      return std::nullopt;
    }
  }
  const std::string loser = greediest->first;
  const uint64_t id = *greediest->second.rbegin();
  Leave(loser, id);
  return id;
}

}  // namespace expertmesh::net
