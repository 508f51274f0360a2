// Sums over many rows in a fixed order, in two launches and without atomics. First launch: block
// (chunk, columns) adds the terms of a chunk of rows for 32 columns. Second launch: the chunks'
// parts are added, always in the same order. Chunks depend on the row count alone, so the same
// input gives the same bits on every device.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kSumLanes = 32;            // columns of a block
constexpr int kSumWays = 8;              // rows in flight of a block
constexpr int64_t kSumChunkRows = 256;   // rows of a chunk: 32 a thread
constexpr int kFinalThreads = 1024;      // of a block of the second launch
constexpr int64_t kMostChunks = 4096;    // beyond, chunks grow instead

static inline int64_t chunk_rows(int64_t rows) {
  const int64_t chunks = divide_up(rows, kSumChunkRows);
  return chunks <= kMostChunks ? kSumChunkRows : divide_up(rows, kMostChunks);
}
static inline int64_t chunk_count(int64_t rows) { return divide_up(rows, chunk_rows(rows)); }

// Sums of one output over the parts p: parts[p * n + i] -> out[i]. Blocks of (width, 1024/width)
// threads: x over outputs, y over parts.
struct FinalSum {
  const float* parts;
  float* out;
  int64_t count, n;
};

static __global__ void __launch_bounds__(kFinalThreads) final_sum_kernel(FinalSum a) {
  __shared__ Sum shared[kFinalThreads];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  Sum sum = {0.0f, 0.0f};
  if (i < a.n) {
    for (int64_t p = threadIdx.y; p < a.count; p += blockDim.y) add_to(sum, a.parts[p * a.n + i]);
  }
  const unsigned self = threadIdx.y * blockDim.x + threadIdx.x;
  shared[self] = sum;
  for (unsigned step = blockDim.y / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.y < step) add_to(shared[self], shared[self + step * blockDim.x]);
  }
  if (threadIdx.y == 0 && i < a.n) a.out[i] = value_of(shared[self]);
}

// out[i] = sum over p < count of parts[p * n + i].
static inline void final_sum(const float* parts, float* out, int64_t count, int64_t n) {
  unsigned width = 1;
  while (width < kSumLanes && width < n) width *= 2;
  launch(final_sum_kernel, dim3(grid_size(divide_up(n, width))), dim3(width, kFinalThreads / width),
         0, FinalSum{parts, out, count, n});
}

// What a term works out once a thread where it has nothing to work out.
struct Nothing {};

// Columns of `Term`: kOutputs sums for each of `columns`. Term has
//   static constexpr int kOutputs;
//   State start(int64_t column) const;  // once a thread: divisions and bounds go here
//   void add(const State& state, int64_t row, int64_t column, Sum* sums) const;
// and the parts are laid out (chunk, output, column).
template <class Term>
struct ColumnSums {
  Term term;
  float* parts;
  int64_t rows, columns, chunk;
};

template <class Term>
static __global__ void __launch_bounds__(kSumLanes * kSumWays)
column_sums_kernel(ColumnSums<Term> a) {
  constexpr int kOutputs = Term::kOutputs;
  __shared__ Sum shared[kSumWays][kOutputs][kSumLanes];
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kSumLanes + threadIdx.x;
  const int64_t first = blockIdx.x * a.chunk;
  const int64_t last = first + a.chunk < a.rows ? first + a.chunk : a.rows;
  Sum sums[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) sums[o] = {0.0f, 0.0f};
  if (column < a.columns) {
    const auto state = a.term.start(column);
    for (int64_t row = first + threadIdx.y; row < last; row += kSumWays) {
      a.term.add(state, row, column, sums);
    }
  }
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
  for (int o = 0; o < kOutputs; ++o) {
    a.parts[(blockIdx.x * kOutputs + o) * a.columns + column] = value_of(shared[0][o][threadIdx.x]);
  }
}

// Parts of all chunks; the caller adds them by final_sum(parts, ..., chunk_count(rows), n).
template <class Term>
static inline float* column_parts(Scratch& scratch, const Term& term, int64_t rows,
                                  int64_t columns) {
  const int64_t chunks = chunk_count(rows);
  float* parts = scratch.take<float>(chunks * Term::kOutputs * columns);
  const dim3 grid(grid_size(chunks), grid_size(divide_up(columns, kSumLanes)));
  launch(column_sums_kernel<Term>, grid, dim3(kSumLanes, kSumWays), 0,
         ColumnSums<Term>{term, parts, rows, columns, chunk_rows(rows)});
  return parts;
}

// out(kOutputs * columns) = the column sums of `term`.
template <class Term>
static inline void column_sums(Scratch& scratch, const Term& term, int64_t rows, int64_t columns,
                               float* out) {
  const float* parts = column_parts(scratch, term, rows, columns);
  final_sum(parts, out, chunk_count(rows), Term::kOutputs * columns);
}

// ---- Sums over all elements of a range --------------------------------------------------------

constexpr int kRangeThreads = 256;
constexpr int64_t kRangeElements = 8192;  // of a block: 32 a thread

// Term: kOutputs; State start() const; void add(const State&, int64_t index, Sum* sums) const.
// Block (chunk, segment): segments of `size` elements are summed apart. parts(segment, chunk,
// output).
template <class Term>
struct RangeSums {
  Term term;
  float* parts;
  int64_t size;
};

template <class Term>
static __global__ void __launch_bounds__(kRangeThreads) range_sums_kernel(RangeSums<Term> a) {
  constexpr int kOutputs = Term::kOutputs;
  Sum sums[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) sums[o] = {0.0f, 0.0f};
  const int64_t begin = blockIdx.x * kRangeElements;
  const int64_t end = begin + kRangeElements < a.size ? begin + kRangeElements : a.size;
  const auto state = a.term.start();
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kRangeThreads) {
    a.term.add(state, blockIdx.y * a.size + i, sums);
  }
  const int64_t at = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
    const float total = block_sum<kRangeThreads>(value_of(sums[o]));
    if (threadIdx.x == 0) a.parts[at * kOutputs + o] = total;
  }
}

static inline int64_t range_chunks(int64_t size) { return divide_up(size, kRangeElements); }

// Parts of `segments` ranges of `size` elements each.
template <class Term>
static inline float* range_parts(Scratch& scratch, const Term& term, int64_t size,
                                 int64_t segments) {
  const int64_t chunks = range_chunks(size);
  float* parts = scratch.take<float>(segments * chunks * Term::kOutputs);
  launch(range_sums_kernel<Term>, dim3(grid_size(chunks), grid_size(segments)),
         dim3(kRangeThreads), 0, RangeSums<Term>{term, parts, size});
  return parts;
}

}  // namespace cuda
}  // namespace spr2q
