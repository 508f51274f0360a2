// What every kernel file includes: the launch, sums over warps and blocks, small helpers. The
// same sources are compiled by nvcc and, for the tests, by the host compiler over the fibre shim
// (test/cuda/shim); everything that differs between the two is in this file and in mma.cuh.
// House rules that the shim checks: block sizes are multiples of 32, every thread of a block
// reaches every __syncthreads(), every lane of a warp reaches every shuffle.
// Floating-point contraction is off (-fmad=false): a fused multiply-add is where fmaf() stands.
#pragma once
#include "runtime.hpp"

#include <cuda_runtime.h>

namespace spr2q {
namespace cuda {

constexpr int kWarp = 32;
// More shared memory must be asked for: 48 KiB, less 8 for what a kernel declares beside its dynamic.
constexpr int64_t kPlainSharedBytes = 40 << 10;

#if defined(SPR2Q_CUDA_SHIM)
#define SPR2Q_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(shim::dynamic_shared())
#else
#define SPR2Q_DYNAMIC_SHARED(type, name)                                   \
  extern __shared__ __align__(16) unsigned char spr2q_dynamic_shared[];    \
  type* name = reinterpret_cast<type*>(spr2q_dynamic_shared)
#endif

cudaStream_t current_stream();
void check_launch();
void allow_shared(const void* kernel, int64_t bytes);

// Queues the kernel on the stream in use. An empty grid is no work; after a failure nothing runs.
template <class... Params, class... Args>
inline void launch(void (*kernel)(Params...), dim3 grid, dim3 block, int64_t shared, Args... args) {
  if (failed() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > kPlainSharedBytes) allow_shared(reinterpret_cast<const void*>(kernel), shared);
#if defined(SPR2Q_CUDA_SHIM)
  shim::launch(current_stream(), reinterpret_cast<const void*>(kernel), grid, block, shared,
               [=] { kernel(Params(args)...); });
#else
  kernel<<<grid, block, static_cast<size_t>(shared), current_stream()>>>(Params(args)...);
#endif
  check_launch();
}

static inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
static inline unsigned grid_size(int64_t blocks) { return static_cast<unsigned>(blocks); }

constexpr int kElementBlock = 256;      // threads of an element-wise kernel
constexpr int64_t kMostBlocks = 16384;  // of a kernel that strides over its elements

// Blocks of an element-wise kernel over n elements.
static inline unsigned element_grid(int64_t n) {
  const int64_t blocks = divide_up(n, kElementBlock);
  return grid_size(blocks < kMostBlocks ? blocks : kMostBlocks);
}

#define SPR2Q_DEVICE static __device__ __forceinline__

// First element of this thread, and the step to its next, of an element-wise kernel.
SPR2Q_DEVICE int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
SPR2Q_DEVICE int64_t element_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

SPR2Q_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
SPR2Q_DEVICE int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

constexpr unsigned kAllLanes = 0xffffffffu;

// Rows of tensors that a block works on: `count` of them from `first` on or, where there is a map,
// those that it names (the tokens of a window).
struct Rows {
  int64_t first;
  int count;
  const int* map;
  __device__ int64_t operator[](int i) const { return map ? map[i] : first + i; }
  // The same without the first `i`.
  __device__ Rows from(int i) const { return {first + i, count - i, map ? map + i : nullptr}; }
};
// Rows first ... of `total`, at most `most` of them.
SPR2Q_DEVICE Rows rows_from(int64_t first, int64_t total, int most) {
  return {first, total - first < most ? static_cast<int>(total - first) : most, nullptr};
}

template <class T>
SPR2Q_DEVICE T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

SPR2Q_DEVICE float warp_max(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over the block in a fixed order, for every thread; kThreads is the block's size.
template <int kThreads, class T>
SPR2Q_DEVICE T block_sum(T value) {
  __shared__ T parts[kThreads / kWarp];
  value = warp_sum(value);
  __syncthreads();  // a sum before this one may still be read
  if (lane_index() == 0) parts[warp_index()] = value;
  __syncthreads();
  T total = parts[0];
#pragma unroll
  for (int i = 1; i < kThreads / kWarp; ++i) total += parts[i];
  return total;
}

// True for every thread of the block that arrives last of `count` blocks, which then sees all that
// the others wrote; the counter (arrivals(), runtime.hpp) is zero again. Who is last is left to
// chance, so what the last block does must not depend on which it is.
SPR2Q_DEVICE bool arrives_last(unsigned* counter, unsigned count) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();  // what the block wrote, before it is counted: a fence passes on what a barrier did
    last = atomicInc(counter, count - 1) == count - 1;
    __threadfence();  // nothing that the block reads from here on is older than the count
  }
  __syncthreads();
  return last;
}

// A running sum with its rounding error (Knuth's two-sum): as good as double where the terms are
// floats, on units that have no fast double.
struct Sum {
  float high, low;
};
SPR2Q_DEVICE void add_to(Sum& sum, float x) {
  const float s = sum.high + x, back = s - sum.high;
  sum.low += (sum.high - (s - back)) + (x - back);
  sum.high = s;
}
SPR2Q_DEVICE void add_to(Sum& sum, const Sum& other) {
  add_to(sum, other.high);
  sum.low += other.low;
}
SPR2Q_DEVICE float value_of(const Sum& sum) { return sum.high + sum.low; }

}  // namespace cuda
}  // namespace spr2q
