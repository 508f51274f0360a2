// Kernels on the host, for tests on a machine without a GPU: the words of CUDA that native/cuda
// uses, for a host compiler. Every thread of a block is a fibre; a block's fibres run one after
// the other, in an order drawn anew for every step, up to the next barrier, shuffle or end; half of
// the steps let one warp run ahead of all others to its next barrier. So a
// barrier that is missing shows as a wrong result, and shim::run returns a text where threads of a
// block reach different barriers or lanes of a warp different shuffles.
// Checked strictly: block sizes are multiples of 32, shuffles name all 32 lanes, and no thread
// leaves a block before a barrier that others reach. Dynamic shared memory is filled with NaNs
// before every block. A block runs in one thread of the host, whose thread_local variables are its
// __shared__ ones: one block after the other, or SPR2Q_SHIM_BLOCKS of them at a time.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static __thread
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern __thread dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

// Runs body() as every thread of every block; null, or what went wrong.
const char* run(dim3 grid, dim3 block, int64_t shared, const std::function<void()>& body);

bool one_block();  // true where blocks run one after the other
void* dynamic_shared();

// Ends the launch, which says why.
[[noreturn]] void trap(const char* why);

// Every lane of the warp puts `bytes` bytes into its slot and, when all have, sees all slots until
// its next exchange. `kind` names the collective: lanes that meet must meet in the same one.
constexpr int kSlotBytes = 64;
const unsigned char* exchange(unsigned mask, const void* value, size_t bytes, const char* kind);

template <class T>
static inline T slot(const unsigned char* slots, int lane) {
  T value;
  std::memcpy(&value, slots + lane * kSlotBytes, sizeof value);
  return value;
}
static inline int lane() { return static_cast<int>(threadIdx.x) & 31; }

}  // namespace shim

void __syncthreads();
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
  shim::exchange(mask, nullptr, 0, "syncwarp");
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= shim::kSlotBytes, "a slot holds the value");
  return shim::slot<T>(shim::exchange(mask, &value, sizeof value, "shfl"), from & 31);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int step) {
  const int from = shim::lane() ^ step;
  return shim::slot<T>(shim::exchange(mask, &value, sizeof value, "shfl_xor"), from & 31);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned step) {
  const int from = shim::lane() - static_cast<int>(step);
  const unsigned char* slots = shim::exchange(mask, &value, sizeof value, "shfl_up");
  return from < 0 ? value : shim::slot<T>(slots, from);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned step) {
  const int from = shim::lane() + static_cast<int>(step);
  const unsigned char* slots = shim::exchange(mask, &value, sizeof value, "shfl_down");
  return from > 31 ? value : shim::slot<T>(slots, from);
}
static inline unsigned __ballot_sync(unsigned mask, bool yes) {
  const unsigned char* slots = shim::exchange(mask, &yes, sizeof yes, "ballot");
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(shim::slot<bool>(slots, i)) << i;
  return bits;
}
static inline unsigned __match_any_sync(unsigned mask, int value) {
  const unsigned char* slots = shim::exchange(mask, &value, sizeof value, "match_any");
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) {
    bits |= static_cast<unsigned>(shim::slot<int>(slots, i) == value) << i;
  }
  return bits;
}

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline unsigned atomicInc(unsigned* at, unsigned most) {
  unsigned before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(at, &before, before >= most ? 0 : before + 1, true,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += (a >> i & 255u) * (b >> i & 255u);
  return sum;
}
static inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
static inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
template <class T>
static inline T __ldg(const T* from) {
  return *from;
}
