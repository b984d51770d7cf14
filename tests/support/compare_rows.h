// Comparisons of arrays of rows. A failure says which row and column differ first, by how much, and
// how many rows differ; it prints no arrays.
//
//   EXPECT_TRUE(SameBits(answer.output, expected, d_model));
//   ASSERT_TRUE(RowsNear(logits, wanted, experts, 1e-5)) << "alone";
//
// `actual` and `expected` are anything contiguous with a size: a vector, a span, a string of bytes.
#ifndef EXPERTMESH_TESTS_SUPPORT_COMPARE_ROWS_H_
#define EXPERTMESH_TESTS_SUPPORT_COMPARE_ROWS_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace compare_rows {

// With so many digits that two values never look the same.
template <typename T>
std::string Shown(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return absl::StrFormat("%.*g", std::numeric_limits<T>::max_digits10, value);
  } else if constexpr (std::is_signed_v<T>) {
    return absl::StrCat(static_cast<int64_t>(value));
  } else {
    return absl::StrCat(static_cast<uint64_t>(value));
  }
}

template <typename T>
std::string ShownBits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  return absl::StrFormat("%s (0x%0*x)", Shown(value), static_cast<int>(2 * sizeof(value)), bits);
}

// What was found, one value after the other.
class Differences {
 public:
  explicit Differences(size_t columns) : columns_(columns) {}

  void Add(size_t place, double by) {
    const double size = std::isnan(by) ? std::numeric_limits<double>::infinity() : std::abs(by);
    if (values_ == 0) {
      first_ = place;
      first_by_ = by;
    }
    if (values_ == 0 || place / columns_ != last_row_) {
      last_row_ = place / columns_;
      ++rows_;
    }
    if (values_ == 0 || size > largest_) {
      largest_ = size;
      largest_at_ = place;
    }
    ++values_;
  }

  bool none() const { return values_ == 0; }
  size_t first() const { return first_; }

  // `shown`: the two values at first().
  std::string Message(size_t count, const std::string& shown) const {
    return absl::StrFormat(
        "row %d, column %d is the first to differ: %s, a difference of %g\n"
        "%d of %d rows and %d of %d values differ, by up to %g in row %d, column %d",
        first_ / columns_, first_ % columns_, shown, first_by_, rows_, count / columns_, values_,
        count, largest_, largest_at_ / columns_, largest_at_ % columns_);
  }

 private:
  const size_t columns_;
  size_t values_ = 0;
  size_t rows_ = 0;
  size_t last_row_ = 0;
  size_t first_ = 0;
  double first_by_ = 0.0;
  size_t largest_at_ = 0;
  double largest_ = 0.0;
};

// How far a row is off, and in which column most.
struct RowError {
  double relative = 0.0;
  size_t column = 0;
  double by = 0.0;
};

template <typename A, typename E>
RowError ErrorOf(const A* actual, const E* expected, size_t columns) {
  RowError error;
  double difference = 0.0;
  double norm = 0.0;
  for (size_t c = 0; c < columns; ++c) {
    const double value = static_cast<double>(expected[c]);
    const double by = static_cast<double>(actual[c]) - value;
    difference += by * by;
    norm += value * value;
    if (std::isnan(by) ? !std::isnan(error.by) : std::abs(by) > std::abs(error.by)) {
      error.column = c;
      error.by = by;
    }
  }
  error.relative = std::sqrt(norm > 0.0 ? difference / norm : difference);
  return error;
}

// Rows that are further off than they may be.
class FarRows {
 public:
  void Add(size_t row, const RowError& error, double bound) {
    if (error.relative <= bound) {
      return;
    }
    if (rows_ == 0) {
      first_ = row;
      first_error_ = error;
    }
    if (rows_ == 0 || !(error.relative <= largest_)) {
      largest_ = error.relative;
      largest_in_ = row;
    }
    ++rows_;
  }

  bool none() const { return rows_ == 0; }
  size_t first() const { return first_; }
  const RowError& first_error() const { return first_error_; }

  std::string Message(size_t count, double bound, const std::string& shown) const {
    return absl::StrFormat(
        "row %d is the first too far off: relative error %g, at most %g; most of it in column %d, "
        "%s, a difference of %g\n%d of %d rows are too far off, by up to %g in row %d",
        first_, first_error_.relative, bound, first_error_.column, shown, first_error_.by, rows_,
        count, largest_, largest_in_);
  }

 private:
  size_t rows_ = 0;
  size_t first_ = 0;
  RowError first_error_;
  double largest_ = 0.0;
  size_t largest_in_ = 0;
};

inline testing::AssertionResult CheckSizes(size_t actual, size_t expected, size_t columns) {
  if (actual != expected || columns == 0 || actual % columns != 0) {
    return testing::AssertionFailure()
           << actual << " values where " << expected << " are expected, in rows of " << columns;
  }
  return testing::AssertionSuccess();
}

// same(i): whether the values at i count as equal. show(i): both, for people.
template <typename Actual, typename Expected, typename Same, typename Show>
testing::AssertionResult Compare(const Actual& actual, const Expected& expected, size_t columns,
                                 const Same& same, const Show& show) {
  const size_t count = std::size(actual);
  const testing::AssertionResult sizes = CheckSizes(count, std::size(expected), columns);
  if (!sizes) {
    return sizes;
  }
  Differences found(columns);
  for (size_t i = 0; i < count; ++i) {
    if (!same(i)) {
      found.Add(i, static_cast<double>(std::data(actual)[i]) -
                       static_cast<double>(std::data(expected)[i]));
    }
  }
  if (found.none()) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << found.Message(count, show(found.first()));
}

}  // namespace compare_rows

// Equal by ==: 0 equals -0, and NaN equals nothing.
template <typename Actual, typename Expected>
testing::AssertionResult SameRows(const Actual& actual, const Expected& expected, size_t columns) {
  const auto* a = std::data(actual);
  const auto* e = std::data(expected);
  return compare_rows::Compare(
      actual, expected, columns, [&](size_t i) { return a[i] == e[i]; },
      [&](size_t i) {
        return compare_rows::Shown(a[i]) + " instead of " + compare_rows::Shown(e[i]);
      });
}

// Equal bit for bit.
template <typename Actual, typename Expected>
testing::AssertionResult SameBits(const Actual& actual, const Expected& expected, size_t columns) {
  const auto* a = std::data(actual);
  const auto* e = std::data(expected);
  static_assert(std::is_same_v<decltype(a), decltype(e)>, "bits of one type only");
  return compare_rows::Compare(
      actual, expected, columns,
      [&](size_t i) { return std::memcmp(&a[i], &e[i], sizeof(a[i])) == 0; },
      [&](size_t i) {
        return compare_rows::ShownBits(a[i]) + " instead of " + compare_rows::ShownBits(e[i]);
      });
}

// Each value within `tolerance` of the expected one: a number, or a function of the value's place
// in the array. NaN is near nothing, an infinity near itself alone.
template <typename Actual, typename Expected, typename Tolerance>
testing::AssertionResult RowsNear(const Actual& actual, const Expected& expected, size_t columns,
                                  const Tolerance& tolerance) {
  const auto* a = std::data(actual);
  const auto* e = std::data(expected);
  const auto allowed = [&](size_t i) -> double {
    if constexpr (std::is_arithmetic_v<Tolerance>) {
      return static_cast<double>(tolerance);
    } else {
      return tolerance(i);
    }
  };
  return compare_rows::Compare(
      actual, expected, columns,
      [&](size_t i) {
        return a[i] == e[i] ||
               std::abs(static_cast<double>(a[i]) - static_cast<double>(e[i])) <= allowed(i);
      },
      [&](size_t i) {
        return absl::StrCat(compare_rows::Shown(a[i]), " instead of ", compare_rows::Shown(e[i]),
                            " within ", allowed(i));
      });
}

// Each row within `bound` of the expected one: the norm of the difference over the norm of the row,
// or the plain norm where the row is all zeros.
template <typename Actual, typename Expected>
testing::AssertionResult RowsClose(const Actual& actual, const Expected& expected, size_t columns,
                                   double bound) {
  const size_t count = std::size(actual);
  const testing::AssertionResult sizes =
      compare_rows::CheckSizes(count, std::size(expected), columns);
  if (!sizes) {
    return sizes;
  }
  compare_rows::FarRows far;
  for (size_t row = 0; row < count / columns; ++row) {
    far.Add(row,
            compare_rows::ErrorOf(std::data(actual) + row * columns,
                                  std::data(expected) + row * columns, columns),
            bound);
  }
  if (far.none()) {
    return testing::AssertionSuccess();
  }
  const size_t place = far.first() * columns + far.first_error().column;
  return testing::AssertionFailure()
         << far.Message(count / columns, bound,
                        compare_rows::Shown(std::data(actual)[place]) + " instead of " +
                            compare_rows::Shown(std::data(expected)[place]));
}

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_COMPARE_ROWS_H_
