#include "router_service/plan/planner.h"

#include <algorithm>
#include <utility>

namespace expertmesh::plan {
namespace {

// Rows for each one that a choice is drawn for: enough for a mean over batches, at next to no cost.
constexpr size_t kRowsPerSample = 16;

}  // namespace

BatchPlan& Planner::Plan(const std::vector<mesh::ExpertReplicas>& replicas,
                         const Assignments& assignments, WorkOfNode work, NodePlanPool* pool) {
  choice_.Choose(replicas, assignments, work);
  pool->Recycle(&plan_.nodes);
  plan_.unplaced.clear();
  MakeRoom(assignments.rows.size(), pool);
  Write(assignments);
  Finish();
  plan_.uniform_transfers = choice_.had_a_choice() ? UniformTransfers(replicas, assignments)
                                                   : static_cast<double>(plan_.transfers);
  return plan_;
}

void Planner::MakeRoom(size_t rows, NodePlanPool* pool) {
  const absl::Span<const ReplicaChoice::Node> nodes = choice_.nodes();
  pool->Take(nodes.size(), &plan_.nodes);
  writers_.resize(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    NodePlan& plan = plan_.nodes[i];
    plan.node = nodes[i].node;
    plan.Resize(std::min<size_t>(rows, nodes[i].assignments), nodes[i].assignments);
    writers_[i] = Writer{plan.rows.data(), plan.row_begin.data(), plan.expert_ids.data(),
                         plan.expert_weights.data()};
  }
}

void Planner::Write(const Assignments& assignments) {
  if (choice_.divided()) {
    WriteAs(assignments, [this](uint32_t expert) { return choice_.ServingNext(expert); });
  } else {
    WriteAs(assignments, [this](uint32_t expert) { return choice_.Serving(expert); });
  }
}

template <typename Serving>
void Planner::WriteAs(const Assignments& assignments, Serving serving_of) {
  for (uint32_t i = 0; i < assignments.rows.size(); ++i) {
    for (uint32_t a = assignments.row_begin[i]; a < assignments.row_begin[i + 1]; ++a) {
      const uint32_t expert = assignments.expert_ids[a];
      const absl::Span<const uint32_t> serving = serving_of(expert);
      if (serving.empty()) {
        plan_.unplaced.push_back({assignments.rows[i], expert});
      }
      for (const uint32_t position : serving) {
        Writer& to = writers_[position];
        if (to.last != i) {
          to.last = i;
          to.rows[to.row_count] = assignments.rows[i];
          to.row_begin[to.row_count] = to.assignment_count;
          ++to.row_count;
        }
        to.expert_ids[to.assignment_count] = expert;
        to.expert_weights[to.assignment_count] = assignments.expert_weights[a];
        ++to.assignment_count;
      }
    }
  }
}

void Planner::Finish() {
  plan_.transfers = 0;
  for (size_t i = 0; i < writers_.size(); ++i) {
    const Writer& written = writers_[i];
    written.row_begin[written.row_count] = written.assignment_count;
    plan_.nodes[i].Resize(written.row_count, written.assignment_count);
    plan_.transfers += written.row_count;
  }
}

double Planner::UniformTransfers(const std::vector<mesh::ExpertReplicas>& replicas,
                                 const Assignments& assignments) {
  const size_t rows = assignments.rows.size();
  size_t transfers = 0;
  size_t row = until_sample_;
  for (; row < rows; row += kRowsPerSample) {
    drawn_.clear();
    for (uint32_t a = assignments.row_begin[row]; a < assignments.row_begin[row + 1]; ++a) {
      for (const std::vector<mesh::NodeIndex>& slice : replicas[assignments.expert_ids[a]].slices) {
        const mesh::NodeIndex node = slice[Draw(slice.size())];
        if (std::find(drawn_.begin(), drawn_.end(), node) == drawn_.end()) {
          drawn_.push_back(node);
        }
      }
    }
    transfers += drawn_.size();
  }
  until_sample_ = row - rows;
  return static_cast<double>(transfers * kRowsPerSample);
}

size_t Planner::MemoryBytes() const {
  return choice_.MemoryBytes() + writers_.capacity() * sizeof(Writer) +
         drawn_.capacity() * sizeof(mesh::NodeIndex) + plan_.nodes.capacity() * sizeof(NodePlan) +
         plan_.unplaced.capacity() * sizeof(Unplaced);
}

// Evenly distributed in [0, below): a multiplicative generator, whose upper bits are good enough to
// count with.
uint32_t Planner::Draw(size_t below) {
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(((random_ >> 32) * below) >> 32);
}

}  // namespace expertmesh::plan
