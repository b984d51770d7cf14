#include "router_service/plan/planner.h"

#include <algorithm>
#include <utility>

namespace expertmesh::plan {
namespace {

// Rows for each one that a choice is drawn for: enough for a mean over batches, at next to no cost.
constexpr size_t kRowsPerSample = 16;

size_t BytesOf(const NodePlan& plan) {
  return (plan.rows.capacity() + plan.row_begin.capacity() + plan.expert_ids.capacity()) *
             sizeof(uint32_t) +
         plan.expert_weights.capacity() * sizeof(float);
}

void Resize(size_t rows, size_t assignments, NodePlan* plan) {
  plan->rows.resize(rows);
  plan->row_begin.resize(rows + 1);
  plan->expert_ids.resize(assignments);
  plan->expert_weights.resize(assignments);
}

// Rows [begin, end) of `whole`.
void CopyRows(const NodePlan& whole, size_t begin, size_t end, NodePlan* piece) {
  const uint32_t first = whole.row_begin[begin];
  const uint32_t last = whole.row_begin[end];
  piece->node = whole.node;
  Resize(end - begin, last - first, piece);
  std::copy(whole.rows.begin() + begin, whole.rows.begin() + end, piece->rows.begin());
  for (size_t row = begin; row <= end; ++row) {
    piece->row_begin[row - begin] = whole.row_begin[row] - first;
  }
  std::copy(whole.expert_ids.begin() + first, whole.expert_ids.begin() + last,
            piece->expert_ids.begin());
  std::copy(whole.expert_weights.begin() + first, whole.expert_weights.begin() + last,
            piece->expert_weights.begin());
}

}  // namespace

void NodePlanPool::Take(size_t count, std::vector<NodePlan>* plans) {
  const size_t wanted = plans->size() + count;
  {
    absl::MutexLock lock(&mutex_);
    while (plans->size() < wanted && !free_.empty()) {
      bytes_ -= BytesOf(free_.back());
      plans->push_back(std::move(free_.back()));
      free_.pop_back();
    }
  }
  plans->resize(wanted);
}

void NodePlanPool::Keep(NodePlan& plan) {
  const size_t bytes = BytesOf(plan);
  if (bytes > 0 && bytes_ + bytes <= kMaxBytes) {
    bytes_ += bytes;
    free_.push_back(std::move(plan));
  }
}

void NodePlanPool::Recycle(std::vector<NodePlan>* plans) {
  {
    absl::MutexLock lock(&mutex_);
    for (NodePlan& plan : *plans) {
      Keep(plan);
    }
  }
  plans->clear();
}

void NodePlanPool::Recycle(NodePlan plan) {
  absl::MutexLock lock(&mutex_);
  Keep(plan);
}

BatchPlan& Planner::Plan(const std::vector<mesh::ExpertReplicas>& replicas,
                         const Assignments& assignments, LoadOfNode load, NodePlanPool* pool) {
  choice_.Choose(replicas, assignments, load);
  pool->Recycle(&plan_.nodes);
  plan_.unplaced.clear();
  MakeRoom(assignments.rows.size(), pool);
  Write(assignments);
  Finish();
  CutToLimits(pool);
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
    Resize(std::min<size_t>(rows, nodes[i].assignments), nodes[i].assignments, &plan);
    writers_[i] = Writer{plan.rows.data(), plan.row_begin.data(), plan.expert_ids.data(),
                         plan.expert_weights.data()};
  }
}

void Planner::Write(const Assignments& assignments) {
  for (uint32_t i = 0; i < assignments.rows.size(); ++i) {
    for (uint32_t a = assignments.row_begin[i]; a < assignments.row_begin[i + 1]; ++a) {
      const uint32_t expert = assignments.expert_ids[a];
      const absl::Span<const uint32_t> serving = choice_.Serving(expert);
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
    Resize(written.row_count, written.assignment_count, &plan_.nodes[i]);
    plan_.transfers += written.row_count;
  }
}

void Planner::CutToLimits(NodePlanPool* pool) {
  const absl::Span<const ReplicaChoice::Node> nodes = choice_.nodes();
  const auto fits = [](const NodePlan& plan, uint32_t limit) {
    return limit == 0 || plan.rows.size() <= limit;
  };
  bool all_fit = true;
  for (size_t i = 0; i < nodes.size(); ++i) {
    all_fit = all_fit && fits(plan_.nodes[i], nodes[i].load.max_batch_rows);
  }
  if (all_fit) {
    return;
  }
  uncut_.swap(plan_.nodes);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const uint32_t limit = nodes[i].load.max_batch_rows;
    if (fits(uncut_[i], limit)) {
      plan_.nodes.push_back(std::move(uncut_[i]));
      continue;
    }
    for (size_t begin = 0; begin < uncut_[i].rows.size(); begin += limit) {
      pool->Take(1, &plan_.nodes);
      CopyRows(uncut_[i], begin, std::min(uncut_[i].rows.size(), begin + limit),
               &plan_.nodes.back());
    }
  }
  pool->Recycle(&uncut_);
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

// Evenly distributed in [0, below): a multiplicative generator, whose upper bits are good enough to
// count with.
uint32_t Planner::Draw(size_t below) {
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(((random_ >> 32) * below) >> 32);
}

}  // namespace expertmesh::plan
