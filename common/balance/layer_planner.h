// Finds copies and shares for the experts of one layer.
#ifndef EXPERTMESH_COMMON_BALANCE_LAYER_PLANNER_H_
#define EXPERTMESH_COMMON_BALANCE_LAYER_PLANNER_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "common/balance/copy_placing.h"
#include "common/balance/copy_search.h"
#include "common/balance/fullest_node_bound.h"
#include "common/balance/layer_copies.h"
#include "common/balance/load_levelling.h"
#include "common/balance/load_order.h"

namespace expertmesh::balance {

// Works in three steps:
//   1. every expert gets the copies that it must have (copy_placing.h);
//   2. while a node is above the bound: rows go over experts that it shares with others; when there
//      is no such way, one of its experts gets a copy on a node with room, or changes places with a
//      smaller one;
//   3. shares are made the best that these copies allow, and copies go that turned out needless.
// In step 2, a node that gets a copy is filled to the bound by it: then n - 1 copies level n nodes.
//
// Where that ends well above the bound, copy_search.h follows.
//
// Not thread-safe. Memory is reused: after the largest layer nothing is allocated.
class LayerPlanner {
 public:
  LayerPlanner() = default;
  LayerPlanner(const LayerPlanner&) = delete;
  LayerPlanner& operator=(const LayerPlanner&) = delete;

  // Nothing is held yet. `problem` is valid until the next call.
  void Begin(const LayerProblem& problem);
  // Each copy once, before Plan(). `rows`: what it serves of the expert's load.
  void AddHeld(uint32_t expert, uint32_t node, double rows) { held_.Add(expert, node, rows); }

  // A level that no plan is below.
  double Bound();
  const LayerCopies& held() const { return held_; }

  // False: there are no slots for the copies that experts must have, of which missing_expert() is
  // one. The same for the plans below.
  bool Plan(double tolerance);

  // Loads, and what the layer comes to with them.
  struct Step {
    uint32_t loads = 0;
    double level = 0;
  };
  // Steps towards a plan: the first loads only what must be there, each other one what it takes to
  // bring all nodes to a lower level. Few, and all in the time of some two plans.
  bool PlanSteps(double tolerance, std::vector<Step>* steps);
  // The `step`-th of them, and then on as far as `most_loads` go, if these are more.
  bool PlanToStep(double tolerance, size_t step, uint32_t most_loads);

  // Those of the last plan.
  const LayerCopies& copies() const { return copies_; }
  double level() const { return level_; }
  // Copies that were not held.
  uint32_t loads() const { return loads_; }
  uint32_t missing_expert() const { return placing_.missing_expert(); }

 private:
  static constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();

  // A copy that is to get another, and where.
  struct Receiver {
    uint32_t node = LayerCopies::kNone;
    // The copy that makes way; kNone where a slot is free.
    uint32_t leaves = LayerCopies::kNone;
    double room = 0;
  };
  struct Exchange {
    uint32_t from = LayerCopies::kNone;
    uint32_t to = LayerCopies::kNone;  // On `node`; kNone: a free slot.
    uint32_t node = LayerCopies::kNone;
    double level = 0;
  };

  uint32_t CostOf(uint32_t expert, uint32_t node) const {
    return held_.count_of_node(node) > 0 && held_.Holds(expert, node) ? 0 : 1;
  }
  bool MayLoad(uint32_t more) const {
    return most_loads_ == kNoLimit || loads_ + more <= most_loads_;
  }
  bool PlaceRequired(bool may_split);
  bool BeginSteps();
  bool StepTo(size_t step, double tolerance);
  void Finish(double tolerance);
  uint32_t AddCopy(uint32_t expert, uint32_t node, double rows);
  void RemoveCopy(uint32_t copy, double target);
  void Improve(double tolerance);
  void ImproveInRounds(double tolerance);
  bool FindSlot(uint32_t node, uint32_t* leaves) const;
  void CollectReceivers();
  uint32_t Preferred(double excess) const;
  bool GiveCopy(uint32_t node);
  bool GiveTo(uint32_t giver, const Receiver& receiver, double rows);
  uint32_t LargestFor(uint32_t giver, uint32_t taker) const;
  uint32_t SmallestOf(uint32_t node) const;
  uint32_t PlaceFor(uint32_t copy) const;
  bool GiveCopyForAnother(uint32_t node, double least_gain);
  bool ExchangeCopies(uint32_t node, double least_gain);
  void ConsiderExchange(uint32_t from, uint32_t node, uint32_t to, Exchange* best) const;
  void DropNeedless();

  const LayerProblem* problem_ = nullptr;
  LayerCopies held_;
  LayerCopies copies_;
  LoadOrder by_load_;
  double bound_ = -1;
  double goal_ = 0;  // What nodes are to come to: the bound, or before it a step's level.
  double level_ = 0;
  uint32_t loads_ = 0;
  uint32_t most_loads_ = kNoLimit;
  // The first step.
  LayerCopies first_;
  double first_level_ = 0;
  uint32_t first_loads_ = 0;
  double excess_ = 0;  // Rows above the goal, of all nodes.
  double room_ = 0;    // Below it, where another copy can be.
  std::vector<Receiver> receivers_;
  std::vector<uint32_t> reached_;
  CopyPlacing placing_;
  LoadLevelling levelling_;
  FullestNodeBound bounds_;
  CopySearch search_{&held_, &levelling_};
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_LAYER_PLANNER_H_
