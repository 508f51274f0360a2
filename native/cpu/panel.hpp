// The matrix products behind linear, conv2d and rectifiers: tall thin float matrices times a small
// one. The small one is packed as a panel of shape (depth, columns padded to whole vectors), which
// fits L1 (48 x 48 floats: 9 KiB), and a tile of tile_rows() rows x up to kMaxVectors vectors
// stays in registers while the depth runs: per step one load per vector, one broadcast per row.
//   panel_product:  y(rows,columns) = bias + sum of a(rows,depth) panel(depth,columns), a segment
//                   of the depth after the other
//   outer_product:  sum(outs,columns) += gy(rows,outs)^T x(rows,columns)
// A linear has one segment; a convolution has one per kernel row, because the taps of a kernel row
// lie side by side in token order. Tiles past the last row read the last row again and do not
// store it, so that no path needs a second kernel.
#pragma once
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {

// Registers decide the tile: rows x vectors accumulators, the panel's vectors and one broadcast.
#if defined(__AVX512F__) || defined(SPR2Q_NEON)
constexpr int kMaxVectors = 4;  // 32 registers: 8 x 3 + 4 or 6 x 4 + 5
template <int V> constexpr int tile_rows() { return V == 4 ? 6 : 8; }
#elif defined(__AVX2__)
constexpr int kMaxVectors = 3;  // 16 registers: 4 x 3 + 4, 6 x 2 + 3
template <int V> constexpr int tile_rows() { return V == 3 ? 4 : V == 2 ? 6 : 8; }
#else
constexpr int kMaxVectors = 2;  // 16 registers or more: 4 x 2 + 4
template <int V> constexpr int tile_rows() { return V == 2 ? 4 : 8; }
#endif
constexpr int64_t kLine = 16;       // floats of a cache line: the distance between two fetches
constexpr int64_t kMaxSegments = 5;  // kernel rows of the largest convolution

// Multiply and add: fused where the machine has it, else two roundings (a call of fmaf() per lane
// would cost thirty times as much, and a float product may round as it likes).
static inline VecF multiply_add(VecF a, VecF b, VecF c) {
#if defined(__AVX2__) || defined(__ARM_FEATURE_FMA)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

static inline int64_t padded(int64_t columns) { return (columns + kLanes - 1) / kLanes * kLanes; }

// panel(depth, padded) from a matrix whose entry (k, c) lies at k * k_step + c * c_step; the
// padding is zero.
static inline void pack_panel(float* panel, const float* matrix, int64_t depth, int64_t columns,
                              int64_t k_step, int64_t c_step) {
  const int64_t width = padded(columns);
  for (int64_t k = 0; k < depth; ++k) {
    float* row = panel + k * width;
    for (int64_t c = 0; c < columns; ++c) row[c] = matrix[k * k_step + c * c_step];
    for (int64_t c = columns; c < width; ++c) row[c] = 0.0f;
  }
}

// One stretch of the depth: rows of `a` lie row_step apart, the panel's rows lie `width` apart.
struct Segment {
  const float* a;
  const float* panel;
};

struct PanelProduct {
  Segment segments[kMaxSegments];
  int64_t segment_count, depth, row_step, width;
  const float* bias;  // padded to `width`, or nullptr
  float* y;
  int64_t rows, columns;
};

template <int V>
static inline void store_tile_row(float* to, const VecF* row, int64_t columns) {
#pragma GCC unroll 4
  for (int v = 0; v < V - 1; ++v) store(to + v * kLanes, row[v]);
  const int64_t rest = columns - (V - 1) * kLanes;
  if (rest >= kLanes) {
    store(to + (V - 1) * kLanes, row[V - 1]);
  } else {
    store_first(to + (V - 1) * kLanes, row[V - 1], static_cast<int>(rest));
  }
}

// Columns [column, column + V vectors) of all rows. kAhead: fetches the rows of the next tile while
// this one is worked on, for rows from beyond L2 (a convolution's rows were copied just before).
template <int V, bool kAhead>
static inline void panel_block(const PanelProduct& p, int64_t column) {
  constexpr int R = tile_rows<V>();
  const int64_t left = p.columns - column;
  VecF start[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) start[v] = p.bias ? load(p.bias + column + v * kLanes) : splat(0.0f);
  for (int64_t row = 0; row < p.rows; row += R) {
    const int64_t valid = p.rows - row < R ? p.rows - row : R;
    float* to = p.y + row * p.columns + column;
    VecF sum[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = start[v];
    }
    for (int64_t s = 0; s < p.segment_count; ++s) {
      const float* from[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        from[r] = p.segments[s].a + (row + (r < valid ? r : valid - 1)) * p.row_step;
      }
      const float* panel = p.segments[s].panel + column;
      for (int64_t k = 0; k < p.depth; ++k, panel += p.width) {
        if (kAhead && k % kLine == 0) {
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            __builtin_prefetch(from[r] + k + R * p.row_step);
            if (k < V * kLanes) __builtin_prefetch(to + (R + r) * p.columns + k, 1);
          }
        }
        VecF weight[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) weight[v] = load(panel + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const VecF x = splat(from[r][k]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(x, weight[v], sum[r][v]);
        }
      }
    }
    if (valid == R) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) store_tile_row<V>(to + r * p.columns, sum[r], left);
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        if (r < valid) store_tile_row<V>(to + r * p.columns, sum[r], left);
      }
    }
  }
}

// Vectors of the next block when `left` remain and `most` fit: blocks of nearly equal width.
static inline int64_t block_vectors(int64_t left, int64_t most) {
  const int64_t blocks = (left + most - 1) / most;
  return (left + blocks - 1) / blocks;
}

template <bool kAhead>
static inline void panel_product(const PanelProduct& p) {
  for (int64_t vector = 0, count = padded(p.columns) / kLanes; vector < count;) {
    const int64_t wide = block_vectors(count - vector, kMaxVectors), column = vector * kLanes;
    switch (wide) {
      case 1: panel_block<1, kAhead>(p, column); break;
      case 2: panel_block<2, kAhead>(p, column); break;
#if defined(__AVX2__) || defined(SPR2Q_NEON)
      case 3: panel_block<3, kAhead>(p, column); break;
#endif
#if defined(__AVX512F__) || defined(SPR2Q_NEON)
      case 4: panel_block<4, kAhead>(p, column); break;
#endif
    }
    vector += wide;
  }
}

struct OuterProduct {
  const float* gy;
  int64_t gy_step;  // floats from one row of gy to the next
  const float* x;
  int64_t x_step;   // floats from one row of x to the next, may be less than `columns`
  float* sum;       // (outs, width)
  int64_t width;    // >= columns padded
  int64_t rows, outs, columns;
};

// kMasked: the last vector reads `columns` columns only (what follows may not be ours to read).
template <int V, bool kMasked>
static inline void outer_block(const OuterProduct& p, int64_t column) {
  constexpr int R = tile_rows<V>();
  const int rest = static_cast<int>(p.columns - column - (V - 1) * kLanes);
  for (int64_t out = 0; out < p.outs; out += R) {
    const int64_t valid = p.outs - out < R ? p.outs - out : R;
    VecF sum[R][V];
    const float* from[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      from[r] = p.gy + out + (r < valid ? r : valid - 1);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = splat(0.0f);
    }
    const float* x = p.x + column;
    int64_t at = 0;
    for (int64_t row = 0; row < p.rows; ++row, x += p.x_step, at += p.gy_step) {
      VecF value[V];
#pragma GCC unroll 4
      for (int v = 0; v < V - 1; ++v) value[v] = load(x + v * kLanes);
      value[V - 1] = kMasked ? load_first(x + (V - 1) * kLanes, rest) : load(x + (V - 1) * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const VecF gy = splat(from[r][at]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(gy, value[v], sum[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (r >= valid) break;
      float* to = p.sum + (out + r) * p.width + column;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(to + v * kLanes, load(to + v * kLanes) + sum[r][v]);
    }
  }
}

template <int V>
static inline void outer_block(const OuterProduct& p, int64_t column) {
  if (column + V * kLanes > p.columns) {
    outer_block<V, true>(p, column);
  } else {
    outer_block<V, false>(p, column);
  }
}

static inline void outer_product(const OuterProduct& p) {
  for (int64_t vector = 0, count = padded(p.columns) / kLanes; vector < count;) {
    const int64_t wide = block_vectors(count - vector, kMaxVectors), column = vector * kLanes;
    switch (wide) {
      case 1: outer_block<1>(p, column); break;
      case 2: outer_block<2>(p, column); break;
#if defined(__AVX2__) || defined(SPR2Q_NEON)
      case 3: outer_block<3>(p, column); break;
#endif
#if defined(__AVX512F__) || defined(SPR2Q_NEON)
      case 4: outer_block<4>(p, column); break;
#endif
    }
    vector += wide;
  }
}

// sum(columns) += column sums of gy(rows,columns).
static inline void add_column_sums(float* sum, const float* gy, int64_t rows, int64_t columns) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const int64_t left = columns - c;
    if (left >= kLanes) {
      VecF total = load(sum + c);
      for (int64_t row = 0; row < rows; ++row) total = total + load(gy + row * columns + c);
      store(sum + c, total);
    } else {
      const int n = static_cast<int>(left);
      VecF total = load_first(sum + c, n);
      for (int64_t row = 0; row < rows; ++row) {
        total = total + load_first(gy + row * columns + c, n);
      }
      store_first(sum + c, total, n);
    }
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
