// Read before every .cu file.
#pragma once

static_assert(__cplusplus >= 202002L, "kernels are C++20, as the rest is");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "kernels use what sm_80 and later have"
#endif
