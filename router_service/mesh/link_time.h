// What a node's link adds to each assignment.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_LINK_TIME_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_LINK_TIME_H_

#include <cstdint>

#include "absl/time/time.h"

namespace expertmesh::mesh {

// Learned from batches of different sizes: how much longer the larger ones are on the way, by least
// squares over about the last thousand. What every batch takes whatever its size is no part of it:
// no load that goes elsewhere saves that. Not thread-safe.
class LinkTime {
 public:
  // A batch of so many assignments was answered; `on_the_way`: without what the node says that it
  // waited and was computed there.
  void Add(uint64_t assignments, absl::Duration on_the_way);

  // In microseconds; as much as is certain, two standard errors below what was measured. 0: nothing
  // is, such as when few batches were answered, or all are of one size.
  double MicrosPerAssignment() const;

 private:
  // Sums of weights, which fall with each batch; means and sums of squares and products of what is
  // on both sides of them: x assignments, y microseconds.
  double weight_ = 0;
  double mean_x_ = 0;
  double mean_y_ = 0;
  double xx_ = 0;
  double xy_ = 0;
  double yy_ = 0;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_LINK_TIME_H_
