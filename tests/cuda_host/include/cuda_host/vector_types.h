// Vector types and function qualifiers as device code knows them. Names and meaning are those of
// the toolkit; only what this tree's kernels use is here.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_VECTOR_TYPES_H_
#define EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_VECTOR_TYPES_H_

#define EXPERTMESH_CUDA_HOST 1

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time, so that what its threads share is what there is once. The harness finds
// these variables by their symbols and poisons them before each block.
#define __shared__ static

struct uint3 {
  unsigned int x, y, z;
};

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int vx = 1, unsigned int vy = 1, unsigned int vz = 1)
      : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned int x, y;
};
struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#endif  // EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_VECTOR_TYPES_H_
