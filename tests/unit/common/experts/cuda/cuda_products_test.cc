// The kernels that multiply: one row has the same bits from each of them.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "common/cuda/device_memory.h"
#include "common/cuda/stream.h"
#include "common/experts/cuda/expert_layout.h"
#include "common/experts/cuda/kernels.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/unit/common/experts/expert_oracle.h"

namespace expertmesh::experts {
namespace {

constexpr size_t kModel = 200;
constexpr size_t kWidth = 150;
constexpr size_t kRows = 140;

class CudaProductsTest : public testing::TestWithParam<Dtype> {
 protected:
  CudaProductsTest() {
    cuda_host::Reset(3);
    stream_ = *cuda::Stream::Create(0);
    EXPECT_EQ(PrepareKernels(), cudaSuccess);
    shape_ = {GetParam(), Arrangement::kForKernels, kModel, kWidth, true};
    const TestExpert expert(random_, {kModel, kWidth}, Storage::Plain(Dtype::kBF16));
    up_ = Packed(shape_.up_rows(), shape_.up_group_bytes(), [&](size_t group, uint8_t* out) {
      packer_.PackUp(shape_, expert.weights(), group, out);
    });
    down_ = Packed(shape_.down_rows(), shape_.down_group_bytes(), [&](size_t group, uint8_t* out) {
      packer_.PackDown(shape_, expert.weights(), group, out);
    });
    const DeviceExpert on_device = {Matrix(up_, shape_.up_rows(), shape_.up_inner()),
                                    Matrix(down_, shape_.down_rows(), shape_.down_inner()),
                                    DeviceActivation::kGatedSilu, 0.0f, 0.0f};
    expert_ = Upload(&on_device, sizeof(on_device));
  }

  static DeviceMatrix Matrix(const cuda::DeviceMemory& memory, size_t rows, size_t inner) {
    return {memory.data(), nullptr, static_cast<uint32_t>(rows), static_cast<uint32_t>(inner)};
  }
  cuda::DeviceMemory Upload(const void* data, size_t bytes) {
    cuda::DeviceMemory memory = *cuda::DeviceMemory::Allocate(0, bytes);
    EXPECT_EQ(cudaMemcpyAsync(memory.data(), data, bytes, cudaMemcpyHostToDevice, stream_.get()),
              cudaSuccess);
    EXPECT_TRUE(stream_.Synchronize().ok());
    return memory;
  }
  template <typename F>
  cuda::DeviceMemory Packed(size_t rows, size_t group_bytes, F pack) {
    std::vector<uint8_t> bytes(rows / kPackedStep * group_bytes);
    for (size_t group = 0; group < rows / kPackedStep; ++group) {
      pack(group, bytes.data() + group * group_bytes);
    }
    return Upload(bytes.data(), bytes.size());
  }

  // The bytes that `launch` makes of kRows rows in tiles of `rows`.
  template <typename Launch>
  std::vector<uint8_t> Run(Launch launch, Stage stage, const cuda::DeviceMemory& input,
                           uint32_t rows) {
    std::vector<TokenTile> tiles;
    for (uint32_t row = 0; row < kRows; row += rows) {
      tiles.push_back({0, row, std::min<uint32_t>(rows, kRows - row)});
    }
    const cuda::DeviceMemory on_device = Upload(tiles.data(), tiles.size() * sizeof(TokenTile));
    const bool up = stage == Stage::kUp;
    ProductArguments arguments;
    arguments.experts = expert_.as<DeviceExpert>();
    arguments.tiles = on_device.as<TokenTile>();
    arguments.tile_count = static_cast<uint32_t>(tiles.size());
    arguments.most_tokens = rows;
    arguments.most_rows = static_cast<uint32_t>(up ? shape_.up_rows() : shape_.down_rows());
    arguments.input = input.data();
    arguments.input_stride = static_cast<uint32_t>(up ? shape_.up_inner() : shape_.down_inner());
    arguments.output_stride = static_cast<uint32_t>(up ? shape_.down_inner() : shape_.down_rows());
    std::vector<uint8_t> result(kRows * arguments.output_stride *
                                (up ? BytesOf(GetParam()) : sizeof(float)));
    const auto output = *cuda::DeviceMemory::Allocate(0, result.size());
    arguments.output = output.data();
    EXPECT_EQ(launch(stage, arguments, stream_.get()), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(result.data(), output.data(), result.size(), cudaMemcpyDeviceToHost,
                              stream_.get()),
              cudaSuccess);
    EXPECT_TRUE(stream_.Synchronize().ok());
    return result;
  }

  std::mt19937 random_{9};
  PackedShape shape_;
  GroupPacker packer_;
  cuda::Stream stream_;
  cuda::DeviceMemory up_, down_, expert_;
};

TEST_P(CudaProductsTest, EveryTileGivesTheSameBits) {
  const bool bf16 = GetParam() == Dtype::kBF16;
  const auto narrow = bf16 ? LaunchNarrowBf16 : LaunchNarrowF32;
  const auto wide = bf16 ? LaunchWideBf16 : LaunchWideF32;
  std::vector<uint32_t> wide_rows = {1, 8, 9, 31, 32};
  if (bf16) {
    wide_rows.insert(wide_rows.end(), {33, 64, 65, 72, 127, kWidestRowsBf16});
  }
  for (const Stage stage : {Stage::kUp, Stage::kDown}) {
    const size_t inner = stage == Stage::kUp ? shape_.up_inner() : shape_.down_inner();
    const std::vector<float> values = RandomValues(random_, kRows * inner, 1.0f, GetParam());
    std::vector<uint8_t> bytes(values.size() * BytesOf(GetParam()));
    ConvertElements(Dtype::kF32, values.data(), GetParam(), bytes.data(), values.size());
    const cuda::DeviceMemory input = Upload(bytes.data(), bytes.size());
    const auto expected = Run(narrow, stage, input, kNarrowRows);
    for (const uint32_t rows : {1u, 3u, 7u}) {
      EXPECT_EQ(Run(narrow, stage, input, rows), expected) << rows;
    }
    for (const uint32_t rows : wide_rows) {
      EXPECT_EQ(Run(wide, stage, input, rows), expected) << rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaProductsTest, testing::Values(Dtype::kBF16, Dtype::kF32),
                         [](const auto& info) {
                           return info.param == Dtype::kBF16 ? "bf16" : "f32";
                         });

}  // namespace
}  // namespace expertmesh::experts
