#include "common/wire/slice_list.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "common/wire/frame.h"

namespace expertmesh {
namespace {

std::vector<size_t> Sizes(const SliceList& list) {
  std::vector<size_t> sizes;
  for (const Slice& slice : list.span()) {
    sizes.push_back(slice.size());
  }
  return sizes;
}

std::vector<size_t> OneTo(size_t count) {
  std::vector<size_t> sizes(count);
  for (size_t i = 0; i < count; ++i) {
    sizes[i] = i + 1;
  }
  return sizes;
}

TEST(SliceListTest, CopiesAndMovesFewAndMany) {
  for (const size_t count : {0, 1, 4, 5, 100}) {
    for (const bool reserved : {false, true}) {
      const auto owner = std::make_shared<const std::string>(200, 'x');
      {
        BufferPool pool;
        SliceList list;
        if (reserved) {
          list.Reserve(count, &pool);
        }
        for (size_t i = 0; i < count; ++i) {
          list.Add(Slice(owner->data(), i + 1, owner));
        }
        const SliceList copy = list;
        SliceList moved = std::move(list);
        EXPECT_EQ(Sizes(moved), OneTo(count));
        EXPECT_EQ(Sizes(copy), OneTo(count));
        EXPECT_EQ(owner.use_count(), static_cast<long>(1 + 2 * count));
        list = std::move(moved);  // What was moved from is as good as new.
        EXPECT_EQ(Sizes(list), OneTo(count));
        moved = copy;
        list.Clear();
        EXPECT_EQ(Sizes(moved), OneTo(count));
        EXPECT_TRUE(Sizes(list).empty());
        EXPECT_EQ(owner.use_count(), static_cast<long>(1 + 2 * count));
      }
      EXPECT_EQ(owner.use_count(), 1);
    }
  }
}

TEST(SliceListTest, MemoryOfThePoolGoesBack) {
  BufferPool pool;
  const auto owner = std::make_shared<const std::string>(10, 'x');
  for (int i = 0; i < 3; ++i) {
    Frame frame;
    frame.Reserve(50, &pool);
    EXPECT_EQ(pool.bytes(), 0u);
    for (int slice = 0; slice < 50; ++slice) {
      frame.Append(Slice(owner->data(), 10, owner));
    }
    const Frame moved = std::move(frame);
    EXPECT_EQ(moved.size(), 500u);
    EXPECT_TRUE(frame.empty());
  }
  EXPECT_GE(pool.bytes(), 50 * sizeof(Slice));
  EXPECT_LT(pool.bytes(), 100 * sizeof(Slice));
}

}  // namespace
}  // namespace expertmesh
