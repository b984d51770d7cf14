// cuBLAS: what it computes, and which arguments it takes.
#include <cstring>
#include <random>
#include <vector>

#include "cublas_v2.h"
#include "cuda_bf16.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/buffers.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/fixture.h"

namespace expertmesh::cuda_host {
namespace {

class BlasTest : public CudaHostTest {
 protected:
  void SetUp() override { ASSERT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS); }
  void TearDown() override {
    EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS);
    CudaHostTest::TearDown();
  }

  std::vector<__nv_bfloat16> Draw(size_t count) {
    std::vector<__nv_bfloat16> values(count);
    for (__nv_bfloat16& value : values) {
      value = __float2bfloat16_rn(static_cast<float>(random_() % 2001) / 1000.0f - 1.0f);
    }
    return values;
  }

  cublasHandle_t handle_ = nullptr;
  std::mt19937 random_{11};
};
using BlasDeathTest = BlasTest;

// Element (row, column) of op(matrix) with leading dimension ld.
double At(const std::vector<__nv_bfloat16>& matrix, cublasOperation_t op, int ld, int row,
          int column) {
  const int index = op == CUBLAS_OP_N ? column * ld + row : row * ld + column;
  return static_cast<double>(__bfloat162float(matrix[static_cast<size_t>(index)]));
}

TEST_F(BlasTest, ProductsAreThoseOfTheDefinition) {
  const int m = 5;
  const int n = 3;
  const int k = 7;
  const int ld = 9;
  for (const cublasOperation_t transa : {CUBLAS_OP_N, CUBLAS_OP_T}) {
    for (const cublasOperation_t transb : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      const auto a = Draw(ld * 9);
      const auto b = Draw(ld * 9);
      DeviceBuffer<__nv_bfloat16> device_a(a);
      DeviceBuffer<__nv_bfloat16> device_b(b);
      DeviceBuffer<float> c(std::vector<float>(ld * n, 2.0f));
      const float alpha = 0.5f;
      const float beta = 3.0f;
      ASSERT_EQ(cublasGemmEx(handle_, transa, transb, m, n, k, &alpha, device_a.data(), CUDA_R_16BF,
                             ld, device_b.data(), CUDA_R_16BF, ld, &beta, c.data(), CUDA_R_32F, ld,
                             CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                CUBLAS_STATUS_SUCCESS);
      const std::vector<float> values = c.Read();
      for (int column = 0; column < n; ++column) {
        for (int row = 0; row < ld; ++row) {
          double expected = row < m ? 6.0 : 2.0;
          for (int i = 0; i < k && row < m; ++i) {
            expected += 0.5 * At(a, transa, ld, row, i) * At(b, transb, ld, i, column);
          }
          EXPECT_NEAR(values[static_cast<size_t>(column * ld + row)], expected, 1e-5);
        }
      }
    }
  }
}

// Two groups: two products of 4 x 2, k = 3, and one of 2 x 2, k = 5.
struct Grouped {
  std::vector<cublasOperation_t> transa{CUBLAS_OP_T, CUBLAS_OP_T};
  std::vector<cublasOperation_t> transb{CUBLAS_OP_N, CUBLAS_OP_N};
  std::vector<int> m{4, 2};
  std::vector<int> n{2, 2};
  std::vector<int> k{3, 5};
  std::vector<int> lda{3, 5};
  std::vector<int> ldb{3, 5};
  std::vector<int> ldc{4, 2};
  std::vector<int> sizes{2, 1};
  std::vector<float> alpha{1, 1};
  std::vector<float> beta{0, 0};
  cudaDataType type = CUDA_R_32F;
  cudaDataType type_c = CUDA_R_32F;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  DeviceBuffer<float> a{std::vector<float>(2 * 12 + 10, 1.0f)};
  DeviceBuffer<float> b{std::vector<float>(2 * 6 + 10, 2.0f)};
  DeviceBuffer<float> c{std::vector<float>(2 * 8 + 4, 0.0f)};
  DeviceBuffer<const void*> a_pointers{{a.data(), a.data() + 12, a.data() + 24}};
  DeviceBuffer<const void*> b_pointers{{b.data(), b.data() + 6, b.data() + 12}};
  DeviceBuffer<void*> c_pointers{{c.data(), c.data() + 8, c.data() + 16}};

  cublasStatus_t Run(cublasHandle_t handle, const void* const* a_array) {
    return cublasGemmGroupedBatchedEx(
        handle, transa.data(), transb.data(), m.data(), n.data(), k.data(), alpha.data(), a_array,
        type, lda.data(), b_pointers.data(), type, ldb.data(), beta.data(), c_pointers.data(),
        type_c, ldc.data(), 2, sizes.data(), compute);
  }
  cublasStatus_t Run(cublasHandle_t handle) { return Run(handle, a_pointers.data()); }
};

TEST_F(BlasTest, GroupsHaveSizesOfTheirOwn) {
  Grouped grouped;
  ASSERT_EQ(grouped.Run(handle_), CUBLAS_STATUS_SUCCESS);
  std::vector<float> expected(16, 6.0f);
  expected.resize(20, 10.0f);
  EXPECT_EQ(grouped.c.Read(), expected);
}

TEST_F(BlasTest, ProductsRunInTheStreamOfTheHandle) {
  TestStream stream;
  ASSERT_EQ(cublasSetStream(handle_, stream.get()), CUBLAS_STATUS_SUCCESS);
  Grouped grouped;
  ASSERT_EQ(cublasSetStream(handle_, stream.get()), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cudaMemsetAsync(grouped.a.data(), 0, sizeof(float), stream.get()), cudaSuccess);
  ASSERT_EQ(grouped.Run(handle_), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
  EXPECT_EQ(grouped.c.Read()[0], 4.0f);
}

TEST_F(BlasTest, ArgumentsThatAreNoneAreRefused) {
  const auto status_with = [this](const auto& change) {
    Grouped grouped;
    change(grouped);
    const cublasStatus_t status = grouped.Run(handle_);
    EXPECT_EQ(grouped.c.Read()[0], status == CUBLAS_STATUS_SUCCESS ? 6.0f : 0.0f);
    return status;
  };
  const cublasStatus_t invalid = CUBLAS_STATUS_INVALID_VALUE;
  EXPECT_EQ(status_with([](Grouped& g) { g.m[0] = -1; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.n[1] = -1; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.k[1] = -1; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.lda[0] = 2; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.ldb[1] = 4; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.ldc[0] = 3; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.lda[0] = 0; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.sizes[1] = -1; }), invalid);
  EXPECT_EQ(status_with([](Grouped& g) { g.transa[1] = static_cast<cublasOperation_t>(3); }),
            invalid);
  const cublasStatus_t unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
  EXPECT_EQ(status_with([](Grouped& g) { g.type = CUDA_R_16BF; }), unsupported)
      << "bf16 in and float32 out is cublasGemmEx's";
  EXPECT_EQ(status_with([](Grouped& g) { g.type = CUDA_R_8I; }), unsupported);
  EXPECT_EQ(status_with([](Grouped& g) { g.compute = CUBLAS_COMPUTE_16F; }), unsupported);
  EXPECT_EQ(status_with([](Grouped& g) { g.sizes[1] = 0; }), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasSetStream(nullptr, nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
}

TEST_F(BlasDeathTest, MatricesAreDeviceMemoryOfTheirWholeSize) {
  Grouped grouped;
  const auto run = [&](const void* const* a_array) {
    grouped.Run(handle_, a_array);
    cudaDeviceSynchronize();
  };
  const void* const on_host[] = {grouped.a.data(), grouped.a.data(), grouped.a.data()};
  EXPECT_DEATH(run(on_host), "Aarray must be device memory with 3 pointers: a copy is missing");
  DeviceBuffer<const void*> too_few({grouped.a.data(), grouped.a.data()});
  EXPECT_DEATH(run(too_few.data()), "Aarray must be device memory with 3 pointers");
  const std::vector<float> host(34);
  DeviceBuffer<const void*> to_host({grouped.a.data(), host.data(), grouped.a.data()});
  EXPECT_DEATH(run(to_host.data()), "product 1: matrix A is not in device memory");
  DeviceBuffer<const void*> too_late({grouped.a.data(), grouped.a.data() + 30, grouped.a.data()});
  EXPECT_DEATH(run(too_late.data()),
               "product 1: matrix A has 4 columns with a leading dimension of 3: 48 bytes, but its "
               "allocation ends after 16");
}

TEST_F(BlasDeathTest, AWrongLeadingDimensionIsNamed) {
  Grouped grouped;
  grouped.lda[1] = 8;
  EXPECT_DEATH(
      {
        grouped.Run(handle_);
        cudaDeviceSynchronize();
      },
      "product 2: matrix A has 2 columns with a leading dimension of 8: 64 bytes, but its "
      "allocation "
      "ends after 40");
}

TEST_F(BlasDeathTest, MatricesAreAligned) {
  const float one = 1.0f;
  DeviceBuffer<__nv_bfloat16> a(64);
  DeviceBuffer<float> c(64);
  const auto run = [&](int k, int offset) {
    return cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, k, &one, a.data() + offset,
                        CUDA_R_16BF, k, a.data(), CUDA_R_16BF, k, &one, c.data(), CUDA_R_32F, 1,
                        CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_EQ(run(8, 8), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(run(6, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_DEATH(run(8, 2), "matrix A is not 16-byte aligned");
  EXPECT_DEATH(run(6, 1), "matrix A is not 4-byte aligned");
}

// The product of a row must not be taken to have the same bits beside other rows.
TEST_F(BlasTest, BitsDependOnTheShape) {
  const int k = 512;
  const auto a = Draw(8 * k);
  const auto b = Draw(k);
  DeviceBuffer<__nv_bfloat16> device_a(a);
  DeviceBuffer<__nv_bfloat16> device_b(b);
  const auto first_of = [&](int m) {
    DeviceBuffer<float> c(8);
    const float one = 1.0f;
    const float zero = 0.0f;
    EXPECT_EQ(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, m, 1, k, &one, device_a.data(),
                           CUDA_R_16BF, k, device_b.data(), CUDA_R_16BF, k, &zero, c.data(),
                           CUDA_R_32F, m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_SUCCESS);
    return c.Read()[0];
  };
  bool differs = false;
  for (int m = 2; m <= 8; ++m) {
    EXPECT_NEAR(first_of(m), first_of(1), 1e-4);
    differs |= first_of(m) != first_of(1);
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(first_of(3), first_of(3));
}

TEST_F(BlasTest, WorkspacesAreAlignedDeviceMemory) {
  DeviceBuffer<char> memory(1024);
  EXPECT_EQ(cublasSetWorkspace(handle_, memory.data(), 1024), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasSetWorkspace(handle_, memory.data() + 1, 512), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasSetMathMode(handle_, CUBLAS_DEFAULT_MATH), CUBLAS_STATUS_SUCCESS);
}

}  // namespace
}  // namespace expertmesh::cuda_host
