// C(m,n) = sum_k A(m,k) B(k,n) in float32, one kernel for linear layers, convolutions and their
// gradients: what differs is where operands lie and where sums go, and that is the Operands' part:
//   float a(int64_t m, int64_t k) const;  float b(int64_t k, int64_t n) const;
//   void store(int64_t m, int64_t n, int64_t split, float sum) const;
//   static constexpr bool kRowsOfA, kRowsOfB: true where consecutive k lie side by side in memory
//   (a tile is then read along k), false where consecutive m (or n) do.
// A block of 256 threads makes a tile of 64 x 32, 48 or 64, a thread 4 x 2, 3 or 4 of it; k runs in
// steps of 16 through shared memory. Splits cut k into fixed pieces (gradients of weights, where k
// counts tokens): each writes its own part, and final_sums adds the parts in order.
#pragma once
#include "sums.cuh"

namespace spr2q {
namespace cuda {

constexpr int kGemmThreads = 256;
constexpr int kGemmBlocks = 2;                  // on a multiprocessor: up to 128 registers a thread
constexpr int kTileM = 64;
constexpr int kTileK = 16;
constexpr int kPerM = 4;                       // rows of a thread: 16 threads along m
constexpr int kThreadsN = 16;                  // threads along n
constexpr int64_t kSplitK = 1024;              // tokens of a split
constexpr int64_t kMostSplits = 512;

struct GemmShape {
  int64_t m, n, k, split;  // split: k of one split, a multiple of kTileK, or all of k
};

// Reads a (kTileK x kSide) tile of an operand into shared memory; zeros outside.
template <bool kAlongK, int kSide, class Read>
SPR2Q_DEVICE void read_tile(float (*tile)[kSide + 4], int64_t first, int64_t first_k, int64_t end,
                            int64_t end_k, const Read& read) {
  constexpr int kFast = kAlongK ? kTileK : kSide;
  for (int at = static_cast<int>(threadIdx.x); at < kTileK * kSide; at += kGemmThreads) {
    const int fast = at % kFast, slow = at / kFast;
    const int k = kAlongK ? fast : slow, i = kAlongK ? slow : fast;
    const bool inside = first + i < end && first_k + k < end_k;
    tile[k][i] = inside ? read(first + i, first_k + k) : 0.0f;
  }
}

template <class Operands, int kPerN>
static __global__ void __launch_bounds__(kGemmThreads, kGemmBlocks)
gemm_kernel(Operands op, GemmShape shape) {
  constexpr int kTileN = kThreadsN * kPerN;
  __shared__ float tile_a[kTileK][kTileM + 4];  // + 4: columns of a tile fall on different banks
  __shared__ float tile_b[kTileK][kTileN + 4];
  const int64_t first_m = static_cast<int64_t>(blockIdx.x) * kTileM;
  const int64_t first_n = static_cast<int64_t>(blockIdx.y) * kTileN;
  const int64_t begin = blockIdx.z * shape.split;
  const int64_t end = begin + shape.split < shape.k ? begin + shape.split : shape.k;
  const int row = static_cast<int>(threadIdx.x) / kThreadsN * kPerM;
  const int column = static_cast<int>(threadIdx.x) % kThreadsN;
  float sums[kPerM][kPerN] = {};
  for (int64_t k = begin; k < end; k += kTileK) {
    read_tile<Operands::kRowsOfA, kTileM>(tile_a, first_m, k, shape.m, end,
                                          [&](int64_t i, int64_t at) { return op.a(i, at); });
    read_tile<Operands::kRowsOfB, kTileN>(tile_b, first_n, k, shape.n, end,
                                          [&](int64_t i, int64_t at) { return op.b(at, i); });
    __syncthreads();
#pragma unroll
    for (int step = 0; step < kTileK; ++step) {
      float a[kPerM], b[kPerN];
#pragma unroll
      for (int i = 0; i < kPerM; ++i) a[i] = tile_a[step][row + i];
#pragma unroll
      for (int j = 0; j < kPerN; ++j) b[j] = tile_b[step][column + kThreadsN * j];
#pragma unroll
      for (int i = 0; i < kPerM; ++i) {
#pragma unroll
        for (int j = 0; j < kPerN; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPerM; ++i) {
#pragma unroll
    for (int j = 0; j < kPerN; ++j) {
      const int64_t m = first_m + row + i, n = first_n + column + kThreadsN * j;
      if (m < shape.m && n < shape.n) op.store(m, n, blockIdx.z, sums[i][j]);
    }
  }
}

template <int kPerN, class Operands>
static inline void gemm_of(const Operands& op, const GemmShape& shape) {
  const int64_t splits = shape.k > 0 ? divide_up(shape.k, shape.split) : 1;
  const dim3 grid(grid_size(divide_up(shape.m, kTileM)),
                  grid_size(divide_up(shape.n, kThreadsN * kPerN)), grid_size(splits));
  launch(gemm_kernel<Operands, kPerN>, grid, dim3(kGemmThreads), 0, op, shape);
}

// The tile width that pads n least; the widest of equals.
template <class Operands>
static inline void gemm(const Operands& op, const GemmShape& shape) {
  const int64_t padded64 = round_up(shape.n, 64), padded48 = round_up(shape.n, 48);
  const int64_t padded32 = round_up(shape.n, 32);
  if (padded64 <= padded48 && padded64 <= padded32) return gemm_of<4>(op, shape);
  if (padded48 <= padded32) return gemm_of<3>(op, shape);
  return gemm_of<2>(op, shape);
}

// k of one split where k counts tokens.
static inline int64_t split_of(int64_t k) {
  const int64_t splits = divide_up(k, kSplitK);
  return splits <= kMostSplits ? kSplitK : round_up(divide_up(k, kMostSplits), kTileK);
}
static inline int64_t split_count(int64_t k) { return k > 0 ? divide_up(k, split_of(k)) : 1; }

}  // namespace cuda
}  // namespace spr2q
