// Sums over many rows in a fixed order, in one launch and without atomics on floats. Each block adds
// the terms of a chunk of rows for 32 columns and leaves its parts; the last one to arrive
// (arrives_last) adds the chunks' parts, always in the same order. Chunks depend on the row count
// alone, so the same input gives the same bits on every device. Sums that a product leaves in parts
// (gemm.cuh, the scan, attention) are added by final_sums, all of an op in one launch.
#pragma once
#include <initializer_list>

#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kSumLanes = 32;            // columns of a block
constexpr int kSumWays = 8;              // rows in flight of a block
constexpr int kSumThreads = kSumLanes * kSumWays;
constexpr int64_t kSumChunkRows = 256;   // rows of a chunk: 32 a thread
constexpr int kFinalThreads = 1024;      // of a block of final_sums
constexpr int64_t kMostChunks = 4096;    // beyond, chunks grow instead

static inline int64_t chunk_rows(int64_t rows) {
  const int64_t chunks = divide_up(rows, kSumChunkRows);
  return chunks <= kMostChunks ? kSumChunkRows : divide_up(rows, kMostChunks);
}
static inline int64_t chunk_count(int64_t rows) { return divide_up(rows, chunk_rows(rows)); }
static inline int64_t at_least_one(int64_t n) { return n > 0 ? n : 1; }

// A thread's share of the sum over i < count of part(i): kPer running sums, of i = first, first +
// kPer * threads, ... with first = thread, thread + threads, ..., folded in halves. The block folds
// the shares of its threads in halves too.
template <int kPer, class Part>
SPR2Q_DEVICE Sum share_of_sum(int64_t thread, int64_t threads, int64_t count, const Part& part) {
  Sum ways[kPer];
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    ways[k] = {0.0f, 0.0f};
    for (int64_t i = thread + k * threads; i < count; i += kPer * threads) {
      add_to(ways[k], part(i));
    }
  }
#pragma unroll
  for (int step = kPer / 2; step > 0; step /= 2) {
#pragma unroll
    for (int k = 0; k < step; ++k) add_to(ways[k], ways[k + step]);
  }
  return ways[0];
}

// Sum over i < count of part(i) by a block of kThreads in kWays running sums, for every thread.
template <int kWays, int kThreads, class Part>
SPR2Q_DEVICE float sum_by_block(int64_t count, const Part& part) {
  __shared__ Sum shared[kThreads];
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  __syncthreads();  // a sum before this one may still be read
  shared[thread] = share_of_sum<kWays / kThreads>(thread, kThreads, count, part);
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (thread < step) add_to(shared[thread], shared[thread + step]);
  }
  __syncthreads();
  return value_of(shared[0]);
}

// ---- Sums of parts that another launch left ----------------------------------------------------

// out[i] = sum over p < count of parts[p * stride + i], i < n.
struct FinalSum {
  const float* parts;
  float* out;
  int64_t count, n, stride;
};

constexpr int kMostSums = 6;

// Each sum with the outputs of its blocks side by side: `width` threads over outputs, 1024 / width
// over parts.
struct FinalSums {
  FinalSum sums[kMostSums];
  int widths[kMostSums];
  int64_t first[kMostSums];  // block with which a sum begins
  int count;
};

static __global__ void __launch_bounds__(kFinalThreads) final_sums_kernel(FinalSums a) {
  __shared__ Sum shared[kFinalThreads];
  int at = 0;
  while (at + 1 < a.count && a.first[at + 1] <= blockIdx.x) ++at;
  const FinalSum& sum = a.sums[at];
  const int self = static_cast<int>(threadIdx.x), width = a.widths[at];
  const int ways = kFinalThreads / width, way = self / width;
  const int64_t i = (blockIdx.x - a.first[at]) * width + self % width;
  shared[self] = {0.0f, 0.0f};
  if (i < sum.n) {
    shared[self] = share_of_sum<1>(way, ways, sum.count, [&](int64_t p) {
      return sum.parts[p * sum.stride + i];
    });
  }
  for (int step = ways / 2; step > 0; step /= 2) {
    __syncthreads();
    if (way < step) add_to(shared[self], shared[self + step * width]);
  }
  if (way == 0 && i < sum.n) sum.out[i] = value_of(shared[self]);
}

static inline void final_sums(std::initializer_list<FinalSum> sums) {
  FinalSums a = {};
  int64_t blocks = 0;
  for (const FinalSum& sum : sums) {
    if (sum.n == 0) continue;
    int width = 1;
    while (width < kSumLanes && width < sum.n) width *= 2;
    a.sums[a.count] = sum;
    a.widths[a.count] = width;
    a.first[a.count++] = blocks;
    blocks += divide_up(sum.n, width);
  }
  launch(final_sums_kernel, dim3(grid_size(blocks)), dim3(kFinalThreads), 0, a);
}

// ---- Sums over the rows of every column --------------------------------------------------------

// What a term works out once a thread where it has nothing to work out.
struct Nothing {};

// Columns of `Term`: kOutputs sums for each of `columns`, for each of `segments` walks over the rows.
//   static constexpr int kOutputs;
//   State start(int64_t segment, int64_t column) const;  // once a thread: divisions and bounds
//   void add(const State& state, int64_t row, int64_t column, Sum* sums) const;
//   void store(int64_t segment, int output, int64_t column, float sum) const;
//   static constexpr bool kFinish;  // finish() by the block that is last of all, behind all stores
//   void finish() const;            // all of its kSumThreads threads call it
// and the parts are laid out (segment, chunk, output, column).
template <class Term>
struct ColumnSums {
  Term term;
  float* parts;
  unsigned* arrivals;  // (segments, column blocks), and one for all
  int64_t rows, columns, chunk;
};

constexpr int kColumnWays = 32;  // running sums over the chunks

template <class Term>
static __global__ void __launch_bounds__(kSumThreads) column_sums_kernel(ColumnSums<Term> a) {
  constexpr int kOutputs = Term::kOutputs;
  __shared__ Sum shared[kSumWays][kOutputs][kSumLanes];
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kSumLanes + threadIdx.x;
  const int64_t first = blockIdx.x * a.chunk, segment = blockIdx.z;
  const int64_t last = first + a.chunk < a.rows ? first + a.chunk : a.rows;
  // The sums of the block's threads folded, and what becomes of each: take(output, sum).
  const auto fold = [&](const Sum* sums, const auto& take) {
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) shared[threadIdx.y][o][threadIdx.x] = sums[o];
    for (int step = kSumWays / 2; step > 0; step /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.y) >= step) continue;
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        add_to(shared[threadIdx.y][o][threadIdx.x], shared[threadIdx.y + step][o][threadIdx.x]);
      }
    }
    if (threadIdx.y != 0 || column >= a.columns) return;
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) take(o, value_of(shared[0][o][threadIdx.x]));
  };
  Sum sums[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) sums[o] = {0.0f, 0.0f};
  if (column < a.columns) {
    const auto state = a.term.start(segment, column);
    for (int64_t row = first + threadIdx.y; row < last; row += kSumWays) {
      a.term.add(state, row, column, sums);
    }
  }
  float* parts = a.parts + segment * gridDim.x * kOutputs * a.columns + column;
  fold(sums, [&](int o, float sum) { parts[(blockIdx.x * kOutputs + o) * a.columns] = sum; });
  const unsigned groups = gridDim.y * gridDim.z;
  if (!arrives_last(a.arrivals + segment * gridDim.y + blockIdx.y, gridDim.x)) return;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
    sums[o] = {0.0f, 0.0f};
    if (column >= a.columns) continue;
    sums[o] = share_of_sum<kColumnWays / kSumWays>(
        threadIdx.y, kSumWays, gridDim.x,
        [&](int64_t chunk) { return parts[(chunk * kOutputs + o) * a.columns]; });
  }
  fold(sums, [&](int o, float sum) { a.term.store(segment, o, column, sum); });
  if constexpr (Term::kFinish) {
    if (arrives_last(a.arrivals + groups, groups)) a.term.finish();
  }
}

template <class Term>
static inline void column_sums(Scratch& scratch, const Term& term, int64_t rows, int64_t columns,
                               int64_t segments = 1) {
  // No rows, or no columns, still have sums: one block at least.
  const int64_t chunks = at_least_one(chunk_count(rows));
  const int64_t blocks = at_least_one(divide_up(columns, kSumLanes));
  float* parts = scratch.take<float>(segments * chunks * Term::kOutputs * columns);
  const dim3 grid(grid_size(chunks), grid_size(blocks), grid_size(segments));
  launch(column_sums_kernel<Term>, grid, dim3(kSumLanes, kSumWays), 0,
         ColumnSums<Term>{term, parts, arrivals(segments * blocks + 1), rows, columns,
                          chunk_rows(rows)});
}

// ---- Sums over all elements of a range --------------------------------------------------------

constexpr int kRangeThreads = 256;
constexpr int64_t kRangeElements = 8192;  // of a block: 32 a thread

// Term: kOutputs; State start() const; void add(const State&, int64_t index, Sum* sums) const;
// void finish(const float* parts, int64_t chunks) const, by all threads of the last block.
// Block (chunk, segment): segments of `size` elements are summed apart. parts(segment, chunk,
// output).
template <class Term>
struct RangeSums {
  Term term;
  float* parts;
  unsigned* arrivals;
  int64_t size;
};

// Chunk `chunk` of `chunks` of a segment, of `segments`, by a block.
template <class Term>
SPR2Q_DEVICE void range_sums_of_chunk(const RangeSums<Term>& a, int64_t chunk, int64_t chunks,
                                      int64_t segment, int64_t segments) {
  constexpr int kOutputs = Term::kOutputs;
  Sum sums[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) sums[o] = {0.0f, 0.0f};
  const int64_t begin = chunk * kRangeElements;
  const int64_t end = begin + kRangeElements < a.size ? begin + kRangeElements : a.size;
  const auto state = a.term.start();
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kRangeThreads) {
    a.term.add(state, segment * a.size + i, sums);
  }
  const int64_t at = segment * chunks + chunk;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
    const float total = block_sum<kRangeThreads>(value_of(sums[o]));
    if (threadIdx.x == 0) a.parts[at * kOutputs + o] = total;
  }
  if (arrives_last(a.arrivals, static_cast<unsigned>(chunks * segments))) {
    a.term.finish(a.parts, chunks);
  }
}

template <class Term>
static __global__ void __launch_bounds__(kRangeThreads) range_sums_kernel(RangeSums<Term> a) {
  range_sums_of_chunk(a, blockIdx.x, gridDim.x, blockIdx.y, gridDim.y);
}

// `segments` ranges of `size` elements each.
template <class Term>
static inline void range_sums(Scratch& scratch, const Term& term, int64_t size, int64_t segments) {
  const int64_t chunks = at_least_one(divide_up(size, kRangeElements));
  float* parts = scratch.take<float>(segments * chunks * Term::kOutputs);
  launch(range_sums_kernel<Term>, dim3(grid_size(chunks), grid_size(segments)),
         dim3(kRangeThreads), 0, RangeSums<Term>{term, parts, arrivals(1), size});
}

}  // namespace cuda
}  // namespace spr2q
