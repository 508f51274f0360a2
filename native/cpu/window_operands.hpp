// What the integer paths of coded attention share (window_codes.hpp, neon_window_codes.hpp): the table
// of weights, and memory for the operands of one head, packed for instructions that multiply four
// bytes by four and add: q as (head_dim/4, padded positions) of four codes each, k as the keys' words
// of four codes, v as (keys/4, dimensions) of one dimension of four keys. W(keys/4, kBlock): four
// weights per query.
#pragma once
#include "../core/grid.hpp"
#include "window_tile.hpp"

#if defined(__AVX512VNNI__) || defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

// Keys of a window, at most: the sum of their weights stays below 2^22, see quotient().
constexpr int64_t kMostKeys = (1 << 22) / 225 - 1;

// q^2 by the index of its exponent on the grid, for one number of bits.
struct alignas(64) SquareTable {
  uint8_t squares[kGridEntries];
  explicit SquareTable(int64_t bits) {
    for (int i = 0; i < kGridEntries; ++i) {
      const float half = exp2_shared(grid_exponent(static_cast<float>(i)));
      const int code = static_cast<int>(__builtin_nearbyintf(level_count(bits) * half));
      squares[i] = static_cast<uint8_t>(code * code);
    }
  }
};
inline const SquareTable& square_table(int64_t bits) {
  static const SquareTable tables[kGridBits] = {SquareTable(1), SquareTable(2), SquareTable(3),
                                                SquareTable(4)};
  return tables[bits - 1];
}

// The operands of one head, packed.
template <int D>
struct CodeOperands {
  static constexpr int kWords = (D + 3) / 4;
  static constexpr int kDims = 4 * kWords;

  int64_t keys, groups, padded;
  uint32_t *W, *q, *k, *v;
  float* key_sum;

  static int64_t words(int64_t keys) {
    const int64_t groups = round_up(keys, 4) / 4;
    return kWords * round_up(keys, kBlock) + (kWords + 1) * round_up(keys, 16) +
           kDims * groups + 16 * groups + 64;
  }
  CodeOperands(int64_t count, uint32_t* memory) : keys(count) {
    groups = round_up(keys, 4) / 4;
    padded = round_up(keys, kBlock);
    W = memory;
    q = memory + 16 * groups;
    v = q + kWords * padded;
    k = v + kDims * groups;
    key_sum = reinterpret_cast<float*>(k + kWords * round_up(keys, 16));
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif
