// Quantising in vectors: what the quantisers and the ops that quantise their own result share.
#pragma once
#include "../core/grid.hpp"
#include "sweep.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr float kAboveHalf = 0.50000006f;  // the least float above 1/2

// A Grid in vectors; the lower bound travels apart, as columns have their own.
struct Levels {
  VecF step, inverse, levels;
  Levels() = default;
  explicit Levels(const Grid& grid)
      : step(splat(grid.step)), inverse(splat(grid.inverse)), levels(splat(grid.levels)) {}
  VecF unclipped(VecF x, VecF lower) const { return (x - lower) * inverse; }
  // min and max return their second operand for NaN: it falls on code 0, as Grid has it.
  VecF position(VecF x, VecF lower) const {
    return min(max(unclipped(x, lower), splat(0.0f)), levels);
  }
  VecF code(VecF x, VecF lower) const { return round_even(position(x, lower)); }
  VecF value(VecF code, VecF lower) const { return fma(step, code, lower); }
};

// Codes of one vector, as floats; binary: of 1 bit, where 1/2 itself rounds to the even 0.
static inline VecF codes_of(VecF x, VecF lower, const Levels& levels, bool binary) {
  if (!binary) return levels.code(x, lower);
  return where_le(splat(kAboveHalf), levels.unclipped(x, lower), splat(1.0f), splat(0.0f));
}

// Codes of one vector; kBinary: of 1 bit, where 1/2 itself rounds to the even 0, and so does NaN.
template <bool kBinary, class Lanes>
static inline void store_codes_of(Lanes lanes, uint8_t* to, VecF x, VecF lower,
                                  const Levels& levels) {
  if (kBinary) lanes.store_flags(to, levels.unclipped(x, lower), splat(kAboveHalf));
  else lanes.store_codes(to, levels.position(x, lower));
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
