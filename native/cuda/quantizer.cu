// Quantiser of Eq. 1 and its straight-through gradients (Eq. 8). One pass over memory, four values
// a thread where rows are whole 16-byte pieces; the grid of a value comes from core/grid.hpp, so
// codes and values are those of every other backend to the bit. Gradients are one pass too: it writes
// gx and the parts of the bounds' sums, which its last block adds in a fixed order.
#include "../core/bounds.hpp"
#include "../core/grid.hpp"
#include "sums.cuh"
#include "table.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct BoundsView {
  const float *lower, *upper;
  int64_t granularity, bits;
};

template <class Args>
BoundsView bounds_of(const Args& a) {
  return {a.lower.data, a.upper.data, a.granularity, a.bits};
}

template <int64_t kGranularity>
SPR2Q_DEVICE Grid grid_at(const BoundsView& b, int64_t row, int64_t column) {
  if (kGranularity == kColumn) return grid_from(b.lower[column], b.upper[0], b.bits);
  const int64_t at = kGranularity == kRow ? row : 0;
  return grid_between(b.lower[at], b.upper[at], b.bits);
}

// The three maps of one value: Map::From -> Map::To.
struct ToCode {
  using From = float;
  using To = uint8_t;
  SPR2Q_DEVICE uint8_t of(const Grid& grid, float x) {
    return static_cast<uint8_t>(code_on(grid, x));
  }
};
struct ToValue {
  using From = uint8_t;
  using To = float;
  SPR2Q_DEVICE float of(const Grid& grid, uint8_t code) {
    return value_on(grid, static_cast<float>(code));
  }
};
struct ToGrid {
  using From = float;
  using To = float;
  SPR2Q_DEVICE float of(const Grid& grid, float x) { return value_on(grid, code_on(grid, x)); }
};

template <class Map>
struct Pass {
  const typename Map::From* from;
  typename Map::To* to;
  BoundsView bounds;
  int64_t n, columns;
};

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

// kWidth values a thread: 1, or 4 that lie in one row.
template <class Map, int64_t kGranularity, int kWidth>
__global__ void __launch_bounds__(kElementBlock) pass_kernel(Pass<Map> a) {
  Grid grid = grid_at<kGranularity>(a.bounds, 0, 0);
  for (int64_t piece = first_element(); piece < a.n / kWidth; piece += element_stride()) {
    const int64_t i = piece * kWidth, row = kGranularity == kTensor ? 0 : i / a.columns;
    const int64_t column = kGranularity == kColumn ? i % a.columns : 0;
    if (kGranularity == kRow) grid = grid_at<kGranularity>(a.bounds, row, 0);
    if constexpr (kWidth == 4) {
      const Four<typename Map::From> from =
          reinterpret_cast<const Four<typename Map::From>*>(a.from)[piece];
      Four<typename Map::To> to;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (kGranularity == kColumn) grid = grid_at<kGranularity>(a.bounds, row, column + k);
        to.at[k] = Map::of(grid, from.at[k]);
      }
      reinterpret_cast<Four<typename Map::To>*>(a.to)[piece] = to;
    } else {
      if (kGranularity == kColumn) grid = grid_at<kGranularity>(a.bounds, row, column);
      a.to[i] = Map::of(grid, a.from[i]);
    }
  }
}

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

template <class Map, int64_t kGranularity>
void pass_of(const Pass<Map>& a) {
  const bool wide = (kGranularity == kTensor ? a.n : a.columns) % 4 == 0 && aligned(a.from) &&
                    aligned(a.to);
  launch(wide ? pass_kernel<Map, kGranularity, 4> : pass_kernel<Map, kGranularity, 1>,
         dim3(element_grid(wide ? a.n / 4 : a.n)), dim3(kElementBlock), 0, a);
}

template <class Map>
void pass(const typename Map::From* from, typename Map::To* to, const BoundsView& bounds,
          int64_t rows, int64_t columns) {
  const Pass<Map> a{from, to, bounds, rows * columns, columns};
  if (bounds.granularity == kTensor) return pass_of<Map, kTensor>(a);
  if (bounds.granularity == kRow) return pass_of<Map, kRow>(a);
  return pass_of<Map, kColumn>(a);
}

// ---- The gradient -----------------------------------------------------------------------------

// A grid and the share of a level, worked out once a thread.
struct Slope {
  Grid grid;
  float share;  // 1 / L
};
SPR2Q_DEVICE Slope slope_of(const Grid& grid) { return {grid, 1.0f / grid.levels}; }

// What a gradient reads and writes.
struct Graded {
  const float *x, *lower, *upper, *gy;
  float *gx, *glower, *gupper;
  int64_t rows, columns, bits;
};
Graded graded_of(const QdqGrad& a) {
  return {a.x.data,      a.lower.data,  a.upper.data, a.gy.data, a.gx.data,
          a.glower.data, a.gupper.data, a.rows,       a.columns, a.bits};
}

// One value: writes gx, adds what its bounds collect.
template <int64_t kGranularity>
SPR2Q_DEVICE void gradient_of(const Graded& a, const Slope& slope, int64_t i, Sum* sums) {
  const Grid& grid = slope.grid;
  const float x = a.x[i], gy = a.gy[i], u = position_on(grid, x);
  const float error = (__builtin_nearbyintf(u) - u) * slope.share * gy;
  const float below = x <= grid.lower ? gy : 0.0f, above = x >= grid.upper ? gy : 0.0f;
  a.gx[i] = grid.lower <= x && x <= grid.upper ? gy : 0.0f;
  add_to(sums[0], kGranularity == kColumn ? below + above : below - error);
  add_to(sums[1], above + error);
}

// Running sums in which the parts of one bound are added.
constexpr int kTensorWays = 512;
constexpr int kRangeWays = 1024;

struct TensorTerm {
  static constexpr int kOutputs = 2;
  Graded a;
  __device__ Slope start() const {
    return slope_of(grid_between(a.lower[0], a.upper[0], a.bits));
  }
  __device__ void add(const Slope& slope, int64_t i, Sum* sums) const {
    gradient_of<kTensor>(a, slope, i, sums);
  }
  __device__ void finish(const float* parts, int64_t chunks) const {
    for (int o = 0; o < kOutputs; ++o) {
      const float sum = sum_by_block<kTensorWays, kRangeThreads>(
          chunks, [&](int64_t chunk) { return parts[kOutputs * chunk + o]; });
      if (threadIdx.x == 0) (o == 0 ? a.glower : a.gupper)[0] = sum;
    }
  }
};
struct ColumnTerm {
  static constexpr int kOutputs = 2;
  static constexpr bool kFinish = true;
  Graded a;
  float* ranges;  // what each column adds to the gradient of the range
  __device__ Slope start(int64_t, int64_t column) const {
    return slope_of(grid_from(a.lower[column], a.upper[0], a.bits));
  }
  __device__ void add(const Slope& slope, int64_t row, int64_t column, Sum* sums) const {
    gradient_of<kColumn>(a, slope, row * a.columns + column, sums);
  }
  __device__ void store(int64_t, int output, int64_t column, float sum) const {
    (output == 0 ? a.glower : ranges)[column] = sum;
  }
  __device__ void finish() const {
    const float sum = sum_by_block<kRangeWays, kSumThreads>(
        a.columns, [&](int64_t column) { return ranges[column]; });
    if (threadIdx.x == 0 && threadIdx.y == 0) a.gupper[0] = sum;
  }
};

constexpr int kRowWarps = 8;  // rows of a block

// A warp for every row of kRowWarps rows: both sums of its pair.
SPR2Q_DEVICE void rows_gradient(const Graded& a, int64_t block) {
  const int64_t row = block * kRowWarps + warp_index();
  if (row >= a.rows) return;  // the whole warp
  const Slope slope = slope_of(grid_between(a.lower[row], a.upper[row], a.bits));
  Sum sums[2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
  for (int64_t c = lane_index(); c < a.columns; c += kWarp) {
    gradient_of<kRow>(a, slope, row * a.columns + c, sums);
  }
  const float lower = warp_sum(value_of(sums[0])), upper = warp_sum(value_of(sums[1]));
  if (lane_index() == 0) {
    a.glower[row] = lower;
    a.gupper[row] = upper;
  }
}
__global__ void __launch_bounds__(kRowWarps * kWarp) row_grad_kernel(Graded a) {
  rows_gradient(a, blockIdx.x);
}

// ---- Weights of many layers -------------------------------------------------------------------

struct Coded {
  const float *x, *lower, *upper;
  uint8_t* codes;
  float* values;
  int n, columns;
};

__global__ void __launch_bounds__(kElementBlock)
weights_kernel(SPR2Q_TABLE(Coded) table, int64_t bits) {
  const int entry = entry_of_block(table);
  const Coded& w = table.entries[entry];
  const int at = static_cast<int>(place_in(table, entry));
  if (at >= w.n) return;
  const int row = at / w.columns;
  const Grid grid = grid_between(w.lower[row], w.upper[row], bits);
  const float code = code_on(grid, w.x[at]);
  w.codes[at] = static_cast<uint8_t>(code);
  w.values[at] = value_on(grid, code);
}

// `parts` and `arrived`: of the sums of a weight with one pair of bounds.
struct GradedWeight {
  Graded graded;
  float* parts;
  unsigned* arrived;
  int64_t blocks;
};

static_assert(kRangeThreads == kRowWarps * kWarp, "blocks of both kinds of bounds in one launch");

__global__ void __launch_bounds__(kRangeThreads) weights_grad_kernel(SPR2Q_TABLE(GradedWeight) table) {
  const int entry = entry_of_block(table);
  const GradedWeight& w = table.entries[entry];
  const int64_t block = static_cast<int64_t>(blockIdx.x) - table.first[entry];
  if (w.graded.rows > 1) return rows_gradient(w.graded, block);
  const RangeSums<TensorTerm> sums{{w.graded}, w.parts, w.arrived, w.graded.columns};
  range_sums_of_chunk(sums, block, w.blocks, 0, 1);
}

// A quantiser's pairs, or its ranges where `lower` is null; a warp each.
struct Ends {
  const float* lower;
  float* upper;
  int n;
};

__global__ void __launch_bounds__(kWarp) separate_kernel(SPR2Q_TABLE(Ends) table) {
  const Ends& ends = table.entries[blockIdx.x];
  for (int i = static_cast<int>(threadIdx.x); i < ends.n; i += kWarp) {
    const float upper = ends.upper[i];
    ends.upper[i] = ends.lower ? separated(ends.lower[i], upper) : separated_range(upper);
  }
}

}  // namespace

void quantize(const Quantize& a) {
  pass<ToCode>(a.x.data, a.codes.data, bounds_of(a), a.rows, a.columns);
}
void dequantize(const Dequantize& a) {
  pass<ToValue>(a.codes.data, a.y.data, bounds_of(a), a.rows, a.columns);
}
void qdq(const Qdq& a) { pass<ToGrid>(a.x.data, a.y.data, bounds_of(a), a.rows, a.columns); }

void qdq_grad(const QdqGrad& a) {
  if (a.granularity == kRow) {
    launch(row_grad_kernel, dim3(grid_size(divide_up(a.rows, kRowWarps))),
           dim3(kRowWarps * kWarp), 0, graded_of(a));
    return;
  }
  Scratch scratch;
  const Graded graded = graded_of(a);
  if (a.granularity == kTensor) {
    return range_sums(scratch, TensorTerm{graded}, a.rows * a.columns, 1);
  }
  float* ranges = scratch.take<float>(a.columns);
  column_sums(scratch, ColumnTerm{graded, ranges}, a.rows, a.columns);
}

void quantize_weights(const QuantizeWeights& a) {
  const auto go = [&](const Table<Coded>& table) {
    launch(weights_kernel, dim3(grid_size(table.blocks)), dim3(kElementBlock), 0, table, a.bits);
  };
  TableFiller<Coded, decltype(go)> tables(go);
  for (int64_t i = 0; i < a.x.size; ++i) {
    const Quantize w = a.quantize(i);
    const int64_t n = w.rows * w.columns;
    tables.add({w.x.data, w.lower.data, w.upper.data, w.codes.data, a.values[i].data,
                static_cast<int>(n), static_cast<int>(w.columns)},
               divide_up(n, kElementBlock));
  }
  tables.flush();
}

void quantize_weights_grad(const QuantizeWeightsGrad& a) {
  Scratch scratch;
  const auto blocks_of = [](const QdqGrad& w) {
    return w.rows > 1 ? divide_up(w.rows, kRowWarps) : divide_up(w.columns, kRangeElements);
  };
  int64_t blocks = 0;
  for (int64_t i = 0; i < a.x.size; ++i) blocks += blocks_of(a.weight(i));
  float* parts = scratch.take<float>(blocks * TensorTerm::kOutputs);
  unsigned* arrived = arrivals(a.x.size);
  if (failed()) return;
  const auto go = [&](const Table<GradedWeight>& table) {
    launch(weights_grad_kernel, dim3(grid_size(table.blocks)), dim3(kRangeThreads), 0, table);
  };
  TableFiller<GradedWeight, decltype(go)> tables(go);
  for (int64_t i = 0; i < a.x.size; ++i) {
    const QdqGrad w = a.weight(i);
    const int64_t own = blocks_of(w);
    tables.add({graded_of(w), parts, arrived + i, own}, own);
    parts += own * TensorTerm::kOutputs;
  }
  tables.flush();
}

void separate_bounds(const SeparateBounds& a) {
  const auto go = [](const Table<Ends>& table) {
    launch(separate_kernel, dim3(grid_size(table.blocks)), dim3(kWarp), 0, table);
  };
  TableFiller<Ends, decltype(go)> tables(go);
  for (int64_t i = 0; i < a.upper.size; ++i) {
    tables.add({a.lower[i].data, a.upper[i].data, static_cast<int>(a.upper[i].size)}, 1);
  }
  for (int64_t i = 0; i < a.ranges.size; ++i) {
    tables.add({nullptr, a.ranges[i].data, static_cast<int>(a.ranges[i].size)}, 1);
  }
  tables.flush();
}

}  // namespace cuda
}  // namespace spr2q
