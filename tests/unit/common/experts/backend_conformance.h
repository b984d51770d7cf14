// What every Backend must do. A backend's test includes this and instantiates the suite:
//   INSTANTIATE_TEST_SUITE_P(Cpu, BackendConformance, testing::Values(BackendCase{...}));
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_BACKEND_CONFORMANCE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_BACKEND_CONFORMANCE_H_

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/experts/backend.h"
#include "common/tensor/aligned_buffer.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/experts/expert_oracle.h"

namespace expertmesh::experts {

struct BackendCase {
  std::string name;
  // A backend that computes with so many threads (or whatever it has instead).
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(int threads)> make;
  // Bound on the norm-wise relative error of a row.
  double tolerance = 0.0;
  // Packed experts hold weights as they are stored, and not in the compute type.
  bool stores_checkpoint_bytes = false;
  // Whether a row's bits depend on nothing but the row: false of a backend that multiplies by
  // somebody else's library.
  bool bits_of_rows = true;
  // Assignments times parameters that one batch of the longest tests may have. A backend that is
  // executed by other means than its own is too slow for all of them.
  double most_work = std::numeric_limits<double>::infinity();
};

// At the head of tests that compare a row's bits in several batches.
#define SKIP_UNLESS_BITS_ARE_OF_ROWS()                  \
  if (!GetParam().bits_of_rows) {                       \
    GTEST_SKIP() << "this backend does not promise it"; \
  }                                                     \
  static_assert(true, "")

inline void PrintTo(const BackendCase& param, std::ostream* os) { *os << param.name; }

// A batch that owns its memory.
struct TestBatch {
  size_t d_model = 0;
  std::vector<float> hidden;            // [rows, d_model], representable in the compute type.
  std::vector<uint32_t> hidden_row_of;  // As in GroupedBatch.
  std::vector<uint32_t> row_begin{0};
  std::vector<size_t> experts;  // Index per assignment.
  std::vector<float> weights;
  ApplyWeight apply = ApplyWeight::kOutput;

  size_t rows() const { return row_begin.size() - 1; }

  void AddRow(const std::vector<float>& x, const std::vector<size_t>& row_experts,
              const std::vector<float>& row_weights) {
    hidden.insert(hidden.end(), x.begin(), x.end());
    experts.insert(experts.end(), row_experts.begin(), row_experts.end());
    weights.insert(weights.end(), row_weights.begin(), row_weights.end());
    row_begin.push_back(static_cast<uint32_t>(experts.size()));
  }
  // Row `row` of `other`.
  void AddRowOf(const TestBatch& other, size_t row) {
    const auto at = [](auto& values, size_t i) {
      return values.begin() + static_cast<ptrdiff_t>(i);
    };
    const size_t first = other.row_begin[row];
    const size_t last = other.row_begin[row + 1];
    AddRow({at(other.hidden, row * d_model), at(other.hidden, (row + 1) * d_model)},
           {at(other.experts, first), at(other.experts, last)},
           {at(other.weights, first), at(other.weights, last)});
  }
};

class BackendConformance : public testing::TestWithParam<BackendCase> {
 protected:
  using Packed = std::vector<std::shared_ptr<const PackedExpert>>;

  void SetUp() override { backend_ = Make(2); }

  static std::unique_ptr<Backend> Make(int threads) {
    auto backend = GetParam().make(threads);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }

  std::vector<TestExpert> RandomExperts(size_t count, size_t d, size_t i,
                                        Dtype dtype = Dtype::kBF16) {
    std::vector<TestExpert> experts;
    for (size_t e = 0; e < count; ++e) {
      experts.emplace_back(random_, d, i, dtype);
    }
    return experts;
  }

  static Packed PackAll(Backend& backend, const std::vector<TestExpert>& experts,
                        IntermediateSlice slice = {}) {
    Packed packed;
    for (const TestExpert& expert : experts) {
      auto one = backend.Pack(expert.options(), expert.weights(), slice);
      EXPECT_TRUE(one.ok()) << one.status();
      packed.push_back(*std::move(one));
    }
    return packed;
  }

  static bool TooMuchWork(size_t assignments, size_t d, size_t i) {
    return static_cast<double>(assignments * d * i) > GetParam().most_work;
  }

  std::vector<float> RandomRow(size_t d) {
    return RandomValues(random_, d, 1.5f, backend_->compute_dtype());
  }

  // `rows` rows with `k` assignments each, drawn from `experts` experts, repeats allowed.
  TestBatch RandomBatch(size_t rows, size_t d, size_t k, size_t experts) {
    TestBatch batch;
    batch.d_model = d;
    for (size_t row = 0; row < rows; ++row) {
      std::vector<size_t> ids(k);
      for (size_t& id : ids) {
        id = random_() % experts;
      }
      batch.AddRow(RandomRow(d), ids, RandomValues(random_, k, 1.0f, Dtype::kF32));
    }
    return batch;
  }

  // A batch as a backend takes it, with the memory it points to. Not movable.
  struct InFlight {
    InFlight(const Backend& backend, const TestBatch& batch, const Packed& packed)
        : row_begin(batch.row_begin),
          hidden_row_of(batch.hidden_row_of),
          weights(batch.weights),
          // What is not written shows.
          partials(batch.rows() * batch.d_model, 12345.0f) {
      for (const size_t expert : batch.experts) {
        experts.push_back(packed[expert].get());
      }
      hidden.Resize(batch.hidden.size() * BytesOf(backend.compute_dtype()));
      ConvertElements(Dtype::kF32, batch.hidden.data(), backend.compute_dtype(), hidden.data(),
                      batch.hidden.size());
      grouped = {hidden.data(), batch.rows(), batch.d_model,   row_begin,    experts,
                 weights,       batch.apply,  partials.data(), hidden_row_of};
    }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;

    // Counts completions and keeps the status of the last.
    void Submit(Backend& backend) {
      backend.Submit(grouped, [this](absl::Status result) {
        const absl::MutexLock lock(&mutex);
        status = std::move(result);
        ++completions;
      });
    }
    void Await() {
      const absl::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(
          +[](int* count) { return *count > 0; }, &completions));
    }

    std::vector<uint32_t> row_begin;
    std::vector<uint32_t> hidden_row_of;
    std::vector<float> weights;
    std::vector<float> partials;
    std::vector<const PackedExpert*> experts;
    AlignedBuffer hidden;
    GroupedBatch grouped;
    absl::Mutex mutex;
    absl::Status status;
    int completions = 0;
  };

  static std::vector<float> Run(Backend& backend, const TestBatch& batch, const Packed& packed) {
    InFlight in_flight(backend, batch, packed);
    const absl::Status status = Compute(backend, in_flight.grouped);
    EXPECT_TRUE(status.ok()) << status;
    return std::move(in_flight.partials);
  }

  // The sum over all slices of `count`.
  std::vector<float> RunSlices(const TestBatch& batch, const std::vector<TestExpert>& experts,
                               uint32_t count) {
    std::vector<float> sum(batch.rows() * batch.d_model, 0.0f);
    for (uint32_t index = 0; index < count; ++index) {
      const auto part = Run(*backend_, batch, PackAll(*backend_, experts, {index, count}));
      for (size_t c = 0; c < sum.size(); ++c) {
        sum[c] += part[c];
      }
    }
    return sum;
  }

  std::vector<double> Expected(const TestBatch& batch, size_t row,
                               const std::vector<TestExpert>& experts) const {
    const Dtype compute = backend_->compute_dtype();
    std::vector<double> sum(batch.d_model, 0.0);
    for (size_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
      const bool input = batch.apply == ApplyWeight::kInput;
      std::vector<double> x(batch.d_model);
      for (size_t c = 0; c < batch.d_model; ++c) {
        const float value = batch.hidden[row * batch.d_model + c];
        x[c] = static_cast<double>(input ? RoundTo(compute, batch.weights[a] * value) : value);
      }
      experts[batch.experts[a]].Apply(x, input ? 1.0 : static_cast<double>(batch.weights[a]),
                                      compute, &sum);
    }
    return sum;
  }

  void ExpectClose(const TestBatch& batch, const std::vector<TestExpert>& experts,
                   const std::vector<float>& actual) const {
    std::vector<double> expected;
    for (size_t row = 0; row < batch.rows(); ++row) {
      const std::vector<double> sum = Expected(batch, row, experts);
      expected.insert(expected.end(), sum.begin(), sum.end());
    }
    EXPECT_TRUE(RowsClose(actual, expected, batch.d_model, GetParam().tolerance));
  }

  // Row `row` of rows of d values.
  static absl::Span<const float> Row(const std::vector<float>& rows, size_t row, size_t d) {
    return absl::MakeConstSpan(rows).subspan(row * d, d);
  }

  std::mt19937 random_{20240607};
  std::unique_ptr<Backend> backend_;
};

}  // namespace expertmesh::experts

#include "tests/unit/common/experts/backend_conformance_experts.inc"
#include "tests/unit/common/experts/backend_conformance_submit.inc"
#include "tests/unit/common/experts/backend_conformance_tests.inc"

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_BACKEND_CONFORMANCE_H_
