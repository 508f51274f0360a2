// The grid of a quantiser (Eq. 1) and the candidates of DOBI, shared by the references and the
// fast kernels: what both must compute to the last bit is written once. All in float32, in the
// order of operations given on top of ops.hpp:
//   u = min(max((x - lower) * inverse, 0), L), code = round_half_even(u),
//   value = fma(step, code, lower)
// A NaN falls on code 0, as with the vector min and max of the fast kernels. Static inline
// functions and no member functions: native/cpu compiles this header once per instruction set, and
// code with external linkage would be shared between the sets by the linker.
#pragma once
#include "ops.hpp"
#include "shared.hpp"

namespace spr2q {

struct Grid {
  float lower, upper, step, inverse, levels;
};

SPR2Q_SHARED float position_on(const Grid& grid, float x) {
  const float u = (x - grid.lower) * grid.inverse;
  const float above = u > 0.0f ? u : 0.0f;
  return above < grid.levels ? above : grid.levels;
}
SPR2Q_SHARED float code_on(const Grid& grid, float x) {
  return __builtin_nearbyintf(position_on(grid, x));
}
SPR2Q_SHARED float value_on(const Grid& grid, float code) {
  return __builtin_fmaf(grid.step, code, grid.lower);
}

SPR2Q_SHARED float level_count(int64_t bits) { return static_cast<float>((1 << bits) - 1); }

// Grid between two bounds (kTensor, kRow).
SPR2Q_SHARED Grid grid_between(float lower, float upper, int64_t bits) {
  const float levels = level_count(bits), range = upper - lower;
  return {lower, upper, range / levels, levels / range, levels};
}

// Grid of a column: its own offset, the range of all (kColumn).
SPR2Q_SHARED Grid grid_from(float lower, float range, int64_t bits) {
  const float levels = level_count(bits);
  return {lower, lower + range, range / levels, levels / range, levels};
}

// ---- DOBI -----------------------------------------------------------------------------------

constexpr int kDobiCandidates = 100;  // ranges tried: 100 %, 99 %, ... 1 % of max - min
// Least upper - lower of a searched range, as a share of max(1, |lower|, |upper|).
constexpr double kDobiLeastRange = 1e-6;

struct Bounds {
  float lower, upper;
};

SPR2Q_SHARED double absolute(double x) { return x < 0 ? -x : x; }

// `bounds`, widened about their middle where they lie closer than kDobiLeastRange allows (constant
// data). A quarter is added, more than rounding the two bounds to float32 can take away.
SPR2Q_SHARED Bounds widened(double lower, double upper) {
  double size = absolute(lower) > absolute(upper) ? absolute(lower) : absolute(upper);
  size = size > 1.0 ? size : 1.0;
  if (!(upper - lower < 1.25 * kDobiLeastRange * size)) {
    return {static_cast<float>(lower), static_cast<float>(upper)};
  }
  const double middle = 0.5 * (lower + upper), half = 0.625 * kDobiLeastRange * size;
  return {static_cast<float>(middle - half), static_cast<float>(middle + half)};
}

// Candidate i of data between least and most: both ends move (two-sided) or the upper one.
SPR2Q_SHARED Bounds dobi_candidate(float least, float most, int i, bool one_sided) {
  const double low = least, high = most;
  if (one_sided) return widened(low, high - i * (high - low) / 100.0);
  const double shrink = i * (high - low) / 200.0;
  return widened(low + shrink, high - shrink);
}

// Candidate i of the common range of kColumn, whose offsets are given. `largest` is max over all
// elements of x - lower, `size` the largest |x| (for the least range).
SPR2Q_SHARED float dobi_range(float largest, float size, int i) {
  const double least = 1.25 * kDobiLeastRange * (size > 1.0f ? size : 1.0f);
  const double range = largest * (100.0 - i) / 100.0;
  return static_cast<float>(range > least ? range : least);
}

}  // namespace spr2q
