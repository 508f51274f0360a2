// The quantiser at the end of a kernel that makes floats: codes under kTensor or kColumn bounds, as
// quantize() makes them.
#pragma once
#include "../core/grid.hpp"
#include "device.cuh"

namespace spr2q {
namespace cuda {

// None where `codes` is null.
struct Coder {
  const float *lower, *upper;
  uint8_t* codes;
  int64_t bits;
  bool by_column;
};

// A quantiser's grid but for the offsets of columns. Two divisions: once a block or a thread.
SPR2Q_DEVICE Grid grid_of(const Coder& a) {
  return a.by_column ? grid_from(0.0f, a.upper[0], a.bits)
                     : grid_between(a.lower[0], a.upper[0], a.bits);
}

// The grid of a column; `grid` is grid_of(a).
SPR2Q_DEVICE Grid grid_in(const Coder& a, Grid grid, int64_t column) {
  if (a.by_column) grid.lower = a.lower[column];
  return grid;
}
// The code of x in a column.
SPR2Q_DEVICE uint8_t code_in(const Coder& a, const Grid& grid, int64_t column, float x) {
  return static_cast<uint8_t>(code_on(grid_in(a, grid, column), x));
}

}  // namespace cuda
}  // namespace spr2q
