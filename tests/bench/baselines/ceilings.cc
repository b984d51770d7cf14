#include "tests/bench/baselines/ceilings.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/matmul/single_threaded_openmp.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh::bench {
namespace {

// Runs work(thread) again and again on `threads` threads for `duration`; returns rounds per second,
// all threads together.
double RoundsPerSecond(int threads, absl::Duration duration,
                       const std::function<void(int thread)>& work) {
  std::atomic<uint64_t> rounds{0};
  const absl::Time begin = absl::Now();
  const absl::Time end = begin + duration;
  std::vector<std::thread> running;
  for (int thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      do {
        work(thread);
        rounds.fetch_add(1, std::memory_order_relaxed);
      } while (absl::Now() < end);
    });
  }
  for (std::thread& thread : running) {
    thread.join();
  }
  return static_cast<double>(rounds.load()) / absl::ToDoubleSeconds(absl::Now() - begin);
}

// One thread's products of [rows, inner] by packed [inner, columns].
class Product {
 public:
  Product(std::shared_ptr<const MatmulShape> shape, size_t rows)
      : shape_(std::move(shape)),
        rows_(rows),
        x_(shape_->XBytes(rows)),
        weights_(shape_->bytes()),
        y_(rows * shape_->columns() * sizeof(float)) {
    std::fill_n(x_.data(), x_.size(), uint8_t{0});
    std::fill_n(weights_.data(), weights_.size(), uint8_t{0});
  }

  void Run() {
    const SingleThreadedOpenMP single;
    (void)runner_.Run(*shape_, shape_->splits()[0], 0, rows_, x_.data(), weights_.data(),
                      y_.as<float>());
  }

 private:
  const std::shared_ptr<const MatmulShape> shape_;
  const size_t rows_;
  AlignedBuffer x_;
  AlignedBuffer weights_;
  AlignedBuffer y_;
  MatmulRunner runner_;
};

}  // namespace

absl::StatusOr<double> ReadBandwidth(int threads, absl::Duration duration) {
  constexpr size_t kBytes = size_t{1} << 30;
  constexpr size_t kLine = 64;
  ASSIGN_OR_RETURN(PackedMemory memory, PackedMemory::Allocate(kBytes, /*huge_pages=*/true));
  std::fill_n(memory.data(), kBytes, uint8_t{1});
  const size_t lines = kBytes / kLine / static_cast<size_t>(threads);
  std::atomic<uint64_t> used{0};  // So that nothing is optimised away.
  const double rounds = RoundsPerSecond(threads, duration, [&](int thread) {
    const auto* at = reinterpret_cast<const uint64_t*>(memory.data()) +
                     static_cast<size_t>(thread) * lines * (kLine / sizeof(uint64_t));
    uint64_t sums[8] = {};
    for (size_t line = 0; line < lines; ++line, at += 8) {
      for (size_t i = 0; i < 8; ++i) {
        sums[i] += at[i];
      }
    }
    for (const uint64_t sum : sums) {
      used.fetch_add(sum, std::memory_order_relaxed);
    }
  });
  return rounds * static_cast<double>(lines * kLine);
}

absl::StatusOr<double> ProductRate(DType dtype, int threads, absl::Duration duration) {
  struct Size {
    size_t rows, inner, columns;
  };
  const std::vector<Size> sizes = {{256, 512, 512}, {256, 1024, 512}, {128, 512, 512}};
  const bool ours = TilesAvailable();
  double best = 0;
  for (const Size& size : sizes) {
    // oneDNN's and ours.
    for (const bool tiles : {false, true}) {
      ASSIGN_OR_RETURN(const std::shared_ptr<const MatmulShape> shape,
                       MatmulShape::Create(dtype, size.inner, size.columns, tiles && ours));
      std::vector<std::unique_ptr<Product>> products;
      for (int thread = 0; thread < threads; ++thread) {
        products.push_back(std::make_unique<Product>(shape, size.rows));
        products.back()->Run();
      }
      const double rounds =
          RoundsPerSecond(threads, duration / static_cast<double>(2 * sizes.size()),
                          [&](int thread) { products[static_cast<size_t>(thread)]->Run(); });
      best =
          std::max(best, rounds * 2.0 * static_cast<double>(size.rows * size.inner * size.columns));
    }
  }
  return best;
}

}  // namespace expertmesh::bench
