#include "tests/bench/baselines/ceilings.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/tensor/aligned_buffer.h"
#include "tests/bench/baselines/onednn_product.h"

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

// One thread's products of [rows, inner] by packed [inner, columns], as experts are multiplied.
class OurProduct {
 public:
  OurProduct(Dtype dtype, size_t rows, size_t inner, size_t columns)
      : shape_(dtype, inner, columns),
        rows_(rows),
        x_(rows * shape_.x_row_bytes()),
        weights_(shape_.bytes()),
        y_(rows * columns * sizeof(float)) {
    std::fill_n(x_.data(), x_.size(), uint8_t{0});
    std::fill_n(weights_.data(), weights_.size(), uint8_t{0});
  }

  void Run() {
    runner_.Run(shape_, shape_.splits()[0], rows_, x_.data(), weights_.data(), y_.as<float>());
  }

 private:
  const experts::MatmulShape shape_;
  const size_t rows_;
  AlignedBuffer x_;
  AlignedBuffer weights_;
  AlignedBuffer y_;
  experts::MatmulRunner runner_;
};

// Rounds per second of products that `make` makes, one for each thread; 0 when it makes none.
template <typename Make>
double ProductsPerSecond(int threads, absl::Duration duration, const Make& make) {
  std::vector<decltype(make())> products;
  for (int thread = 0; thread < threads; ++thread) {
    products.push_back(make());
    if (products.back() == nullptr) {
      return 0;
    }
    products.back()->Run();
  }
  return RoundsPerSecond(threads, duration,
                         [&](int thread) { products[static_cast<size_t>(thread)]->Run(); });
}

}  // namespace

absl::StatusOr<double> ReadBandwidth(int threads, absl::Duration duration) {
  constexpr size_t kBytes = size_t{1} << 30;
  constexpr size_t kLine = 64;
  ASSIGN_OR_RETURN(experts::PackedMemory memory,
                   experts::PackedMemory::Allocate(kBytes, /*huge_pages=*/true));
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

absl::StatusOr<double> ProductRate(Dtype dtype, int threads, absl::Duration duration) {
  struct Size {
    size_t rows, inner, columns;
  };
  const std::vector<Size> sizes = {{256, 512, 512}, {256, 1024, 512}, {128, 512, 512}};
  double best = 0;
  const absl::Duration share = duration / static_cast<double>(2 * sizes.size());
  for (const Size& size : sizes) {
    const double ours = ProductsPerSecond(threads, share, [&] {
      return std::make_unique<OurProduct>(dtype, size.rows, size.inner, size.columns);
    });
    const double theirs = ProductsPerSecond(threads, share, [&] {
      return OneDnnProduct::Create(dtype, size.rows, size.inner, size.columns);
    });
    best = std::max(best, std::max(ours, theirs) * 2.0 *
                              static_cast<double>(size.rows * size.inner * size.columns));
  }
  return best;
}

}  // namespace expertmesh::bench
