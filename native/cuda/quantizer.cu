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

// One value: writes gx, adds what its bounds collect.
template <int64_t kGranularity>
SPR2Q_DEVICE void gradient_of(const QdqGrad& a, const Slope& slope, int64_t i, Sum* sums) {
  const Grid& grid = slope.grid;
  const float x = a.x.data[i], gy = a.gy.data[i], u = position_on(grid, x);
  const float error = (__builtin_nearbyintf(u) - u) * slope.share * gy;
  const float below = x <= grid.lower ? gy : 0.0f, above = x >= grid.upper ? gy : 0.0f;
  a.gx.data[i] = grid.lower <= x && x <= grid.upper ? gy : 0.0f;
  add_to(sums[0], kGranularity == kColumn ? below + above : below - error);
  add_to(sums[1], above + error);
}

// Running sums in which the parts of one bound are added.
constexpr int kTensorWays = 512;
constexpr int kRangeWays = 1024;

struct TensorTerm {
  static constexpr int kOutputs = 2;
  QdqGrad a;
  __device__ Slope start() const {
    return slope_of(grid_between(a.lower.data[0], a.upper.data[0], a.bits));
  }
  __device__ void add(const Slope& slope, int64_t i, Sum* sums) const {
    gradient_of<kTensor>(a, slope, i, sums);
  }
  __device__ void finish(const float* parts, int64_t chunks) const {
    for (int o = 0; o < kOutputs; ++o) {
      const float sum = sum_by_block<kTensorWays, kRangeThreads>(
          chunks, [&](int64_t chunk) { return parts[kOutputs * chunk + o]; });
      if (threadIdx.x == 0) (o == 0 ? a.glower.data : a.gupper.data)[0] = sum;
    }
  }
};
struct ColumnTerm {
  static constexpr int kOutputs = 2;
  static constexpr bool kFinish = true;
  QdqGrad a;
  float* ranges;  // what each column adds to the gradient of the range
  __device__ Slope start(int64_t, int64_t column) const {
    return slope_of(grid_from(a.lower.data[column], a.upper.data[0], a.bits));
  }
  __device__ void add(const Slope& slope, int64_t row, int64_t column, Sum* sums) const {
    gradient_of<kColumn>(a, slope, row * a.columns + column, sums);
  }
  __device__ void store(int64_t, int output, int64_t column, float sum) const {
    (output == 0 ? a.glower.data : ranges)[column] = sum;
  }
  __device__ void finish() const {
    const float sum = sum_by_block<kRangeWays, kSumThreads>(
        a.columns, [&](int64_t column) { return ranges[column]; });
    if (threadIdx.x == 0 && threadIdx.y == 0) a.gupper.data[0] = sum;
  }
};

constexpr int kRowWarps = 8;  // rows of a block

// A warp for every row: both sums of its pair.
__global__ void __launch_bounds__(kRowWarps * kWarp) row_grad_kernel(QdqGrad a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowWarps + warp_index();
  if (row >= a.rows) return;  // the whole warp
  const Slope slope = slope_of(grid_between(a.lower.data[row], a.upper.data[row], a.bits));
  Sum sums[2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
  for (int64_t c = lane_index(); c < a.columns; c += kWarp) {
    gradient_of<kRow>(a, slope, row * a.columns + c, sums);
  }
  const float lower = warp_sum(value_of(sums[0])), upper = warp_sum(value_of(sums[1]));
  if (lane_index() == 0) {
    a.glower.data[row] = lower;
    a.gupper.data[row] = upper;
  }
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
           dim3(kRowWarps * kWarp), 0, a);
    return;
  }
  Scratch scratch;
  if (a.granularity == kTensor) return range_sums(scratch, TensorTerm{a}, a.rows * a.columns, 1);
  float* ranges = scratch.take<float>(a.columns);
  column_sums(scratch, ColumnTerm{a, ranges}, a.rows, a.columns);
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
