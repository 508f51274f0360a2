// What the integer paths of coded attention share (window_codes.hpp, neon_window_codes.hpp): the table
// of weights, and the operands of one head packed for instructions that multiply four bytes by four
// and add: q as (head_dim/4, padded positions) of four codes each, k as (keys, head_dim/4), v as
// (keys/4, dimensions) of one dimension of four keys. W(keys/4, kBlock): four weights per query.
#pragma once
#include "../core/grid.hpp"
#include "window_tile.hpp"

#if defined(__AVX512VNNI__) || defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

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

// The bytes of four words, transposed: word d of the result has byte d of each.
static inline void put_across(uint32_t* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#if defined(SPR2Q_NEON)
  const uint32_t words[4] = {a, b, c, d};
  constexpr uint8_t kAcross[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const uint8x16_t rows = vreinterpretq_u8_u32(vld1q_u32(words));
  vst1q_u32(to, vreinterpretq_u32_u8(vqtbl1q_u8(rows, vld1q_u8(kAcross))));
#else
  const __m128i across = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m128i rows = _mm_setr_epi32(static_cast<int32_t>(a), static_cast<int32_t>(b),
                                      static_cast<int32_t>(c), static_cast<int32_t>(d));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(rows, across));
#endif
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

  // Codes 4 i ... 4 i + 3 of a row, zeros behind head_dim; kFull: head_dim is D.
  template <bool kFull>
  static uint32_t word(const uint8_t* row, int i, int64_t head_dim) {
    const int64_t width = (kFull ? D : head_dim) - 4 * i;
    uint32_t bytes = 0;
    if (width >= 4) {
      std::memcpy(&bytes, row + 4 * i, 4);
    } else if (width == 2) {
      std::memcpy(&bytes, row + 4 * i, 2);
    } else {
      for (int64_t d = 0; d < width; ++d) bytes |= uint32_t{row[4 * i + d]} << (8 * d);
    }
    return bytes;
  }

  template <bool kFull>
  SPR2Q_PASS void pack(const CodedWindowAttention& a, const int64_t* at, int64_t column) {
    const int64_t head_dim = a.head_dim;
    for (int64_t j = 0; j < padded; ++j) {
      const uint8_t* row = a.q.data + column + at[j < keys ? j : 0];
      for (int i = 0; i < kWords; ++i) q[i * padded + j] = word<kFull>(row, i, head_dim);
    }
    for (int64_t j = 0; j < keys; ++j) {
      const uint8_t* row = a.k.data + column + at[j];
      uint32_t pairs = 0;  // two sums of 16 bits
      for (int i = 0; i < kWords; ++i) {
        const uint32_t bytes = word<kFull>(row, i, head_dim);
        k[j * kWords + i] = bytes;
        pairs += (bytes & 0x00ff00ffu) + ((bytes >> 8) & 0x00ff00ffu);
      }
      key_sum[j] = static_cast<float>((pairs & 0xffffu) + (pairs >> 16));
    }
    for (int64_t g = 0; g < groups; ++g) {
      const uint8_t* row[4];
      for (int64_t r = 0; r < 4; ++r) {
        row[r] = a.v.data + column + at[4 * g + r < keys ? 4 * g + r : 0];
      }
      for (int i = 0; i < kWords; ++i) {
        // A row past the last key repeats the first: its weight is 0.
        put_across(v + g * kDims + 4 * i, word<kFull>(row[0], i, head_dim),
                   word<kFull>(row[1], i, head_dim), word<kFull>(row[2], i, head_dim),
                   word<kFull>(row[3], i, head_dim));
      }
    }
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif
