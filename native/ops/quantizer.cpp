// Quantiser of Eq. 1 and its straight-through gradients (Eq. 8): quantize, dequantize, qdq,
// qdq_grad. x, y: (rows, columns) f32; codes: one byte each. Bounds by granularity: one pair for
// the tensor, one pair per row, or one offset per column with a common range. The value path is
// float32 to the letter of ops.hpp, so that every backend gives the same codes and values; bound
// gradients are summed in double.
#include "../core/bounds.hpp"
#include "../core/grid.hpp"

namespace spr2q {
namespace ops {
namespace {

// The grid that element (row, column) lies on, whatever the granularity.
template <class Args>
Grid grid_at(const Args& a, int64_t row, int64_t column) {
  if (a.granularity == kColumn) return grid_from(a.lower.data[column], a.upper.data[0], a.bits);
  const int64_t at = a.granularity == kRow ? row : 0;
  return grid_between(a.lower.data[at], a.upper.data[at], a.bits);
}

// Calls body(index, row, column, grid) for each element.
template <class Args, class Body>
void each_element(const Args& a, Body body) {
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t column = 0; column < a.columns; ++column) {
      body(row * a.columns + column, row, column, grid_at(a, row, column));
    }
  }
}

}  // namespace

void quantize(const Quantize& a) {
  each_element(a, [&](int64_t i, int64_t, int64_t, const Grid& grid) {
    a.codes.data[i] = static_cast<uint8_t>(code_on(grid, a.x.data[i]));
  });
}

void dequantize(const Dequantize& a) {
  each_element(a, [&](int64_t i, int64_t, int64_t, const Grid& grid) {
    a.y.data[i] = value_on(grid, static_cast<float>(a.codes.data[i]));
  });
}

void qdq(const Qdq& a) {
  each_element(a, [&](int64_t i, int64_t, int64_t, const Grid& grid) {
    a.y.data[i] = value_on(grid, code_on(grid, a.x.data[i]));
  });
}

void qdq_grad(const QdqGrad& a) {
  // Sums of one bound pair at a time: the elements of a tensor, of a row or of a column.
  const int64_t pairs = bound_count(a.granularity, a.rows, a.columns);
  double range_gradient = 0;  // kColumn: one sum over all columns
  for (int64_t pair = 0; pair < pairs; ++pair) {
    double lower_gradient = 0, upper_gradient = 0;
    const int64_t first = a.granularity == kRow ? pair : 0;
    const int64_t last = a.granularity == kRow ? pair + 1 : a.rows;
    for (int64_t row = first; row < last; ++row) {
      const int64_t from = a.granularity == kColumn ? pair : 0;
      const int64_t to = a.granularity == kColumn ? pair + 1 : a.columns;
      for (int64_t column = from; column < to; ++column) {
        const int64_t i = row * a.columns + column;
        const Grid grid = grid_at(a, row, column);
        const float x = a.x.data[i], gy = a.gy.data[i], u = position_on(grid, x);
        const double e = (static_cast<double>(__builtin_nearbyintf(u)) - u) / grid.levels;
        const bool low = x <= grid.lower, high = x >= grid.upper;
        a.gx.data[i] = grid.lower <= x && x <= grid.upper ? gy : 0.0f;
        if (a.granularity == kColumn) {
          lower_gradient += (low ? gy : 0.0) + (high ? gy : 0.0);
        } else {
          lower_gradient += (low ? gy : 0.0) - e * gy;
        }
        upper_gradient += (high ? gy : 0.0) + e * gy;
      }
    }
    a.glower.data[pair] = static_cast<float>(lower_gradient);
    range_gradient += upper_gradient;
    if (a.granularity != kColumn) a.gupper.data[pair] = static_cast<float>(upper_gradient);
  }
  if (a.granularity == kColumn) a.gupper.data[0] = static_cast<float>(range_gradient);
}

void quantize_weights(const QuantizeWeights& a) {
  for (int64_t i = 0; i < a.x.size; ++i) {
    quantize(a.quantize(i));
    dequantize(a.dequantize(i));
  }
}
void quantize_weights_grad(const QuantizeWeightsGrad& a) {
  for (int64_t i = 0; i < a.x.size; ++i) qdq_grad(a.weight(i));
}

void separate_bounds(const SeparateBounds& a) {
  for (int64_t i = 0; i < a.upper.size; ++i) {
    const F32 lower = a.lower[i], upper = a.upper[i];
    for (int64_t k = 0; k < upper.size; ++k) upper.data[k] = separated(lower.data[k], upper.data[k]);
  }
  for (int64_t i = 0; i < a.ranges.size; ++i) {
    const F32 ranges = a.ranges[i];
    for (int64_t k = 0; k < ranges.size; ++k) ranges.data[k] = separated_range(ranges.data[k]);
  }
}

}  // namespace ops
}  // namespace spr2q
