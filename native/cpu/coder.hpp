// The quantiser of an op that hands on its result as codes: bounds of a tensor or of columns, made
// ready once per thread and applied to rows that are still in its cache.
#pragma once
#include "levels.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

// The quantiser of one output, its offsets repeated to whole vectors where columns have their own.
struct Coder {
  uint8_t* codes;
  Levels levels;
  Pattern offsets;
  bool binary;
};

static Coder coder(const F32& lower, const F32& upper, const U8& codes, int64_t columns,
                   int64_t granularity, int64_t bits, int slot) {
  const bool by_column = granularity == kColumn;
  const Grid grid = by_column ? grid_from(0.0f, upper.data[0], bits)
                              : grid_between(lower.data[0], upper.data[0], bits);
  Pattern offsets = {nullptr, 0, 0};
  if (by_column) {
    offsets = repeat(lower.data, columns, slot);
  } else {
    float* one = scratch<float>(slot, kLanes);
    for (int i = 0; i < kLanes; ++i) one[i] = lower.data[0];
    offsets = {one, kLanes, 1};
  }
  return {codes.data, Levels(grid), offsets, bits == 1};
}

// Codes of n contiguous values, which begin on a row; `to` is where theirs go.
template <bool kBinary>
static inline void code_values(const Coder& coder, const float* x, int64_t n, uint8_t* to) {
  sweep_pattern(coder.offsets.size, 0, n, [&](int64_t i, int64_t j, auto lanes) {
    store_codes_of<kBinary>(lanes, to + i, lanes.load(x + i), load(coder.offsets.data + j),
                            coder.levels);
  });
}
static inline void code_values(const Coder& coder, const float* x, int64_t n, uint8_t* to) {
  if (coder.binary) code_values<true>(coder, x, n, to);
  else code_values<false>(coder, x, n, to);
}

// The same of factor * x.
template <bool kBinary>
static inline void code_products(const Coder& coder, const float* factor, const float* x, int64_t n,
                                 uint8_t* to) {
  sweep_pattern(coder.offsets.size, 0, n, [&](int64_t i, int64_t j, auto lanes) {
    const VecF product = lanes.load(factor + i) * lanes.load(x + i);
    store_codes_of<kBinary>(lanes, to + i, product, load(coder.offsets.data + j), coder.levels);
  });
}
[[maybe_unused]] static inline void code_products(const Coder& coder, const float* factor,
                                                  const float* x, int64_t n, uint8_t* to) {
  if (coder.binary) code_products<true>(coder, factor, x, n, to);
  else code_products<false>(coder, factor, x, n, to);
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
