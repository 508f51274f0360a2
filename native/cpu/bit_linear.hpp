// The linear layer on 1-bit codes, for AVX-512 with VPOPCNTDQ: 64 inputs of one output are one
// 64-bit lane, so a product is an AND and a sum of products the number of its ones. 48 inputs by 48
// outputs are 6 registers, which stay where they are while the rows pass. The sums are the exact
// integers of every other path, and the epilogue is theirs: same bits.
// Packed: as in coded_linear.cpp, the panel being (words of 64 inputs, padded outputs).
#pragma once
#include "simd.hpp"

#if defined(__AVX512F__)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

#define SPR2Q_BITS __attribute__((target("avx512vpopcntdq"), noinline))

constexpr int kBitSlot = 2;     // of a thread's scratch
constexpr int kBitVectors = 3;  // of 16 outputs side by side: 6 weights, 6 counts, and the epilogue

inline bool has_bit_counts() {
  static const bool has = __builtin_cpu_supports("avx512vpopcntdq");
  return has;
}

struct BitLinear {
  const uint64_t* panel;  // (words, width)
  const float *product_scale, *total_scale, *constant;
  int64_t in, out, width, words;
};

// Which of `n` (at most 64) codes are 1.
static inline uint64_t bits_of(const uint8_t* codes, int64_t n) {
  const __mmask64 here = n == 64 ? ~0ull : (1ull << n) - 1;
  const __m512i bytes = _mm512_maskz_loadu_epi8(here, codes);
  return _cvtmask64_u64(_mm512_test_epi8_mask(bytes, bytes));
}

// Outputs [column, column + V vectors) of `rows` rows: x (rows, words), totals (rows).
template <int V>
SPR2Q_BITS void bit_block(const BitLinear& p, const uint64_t* x, const float* totals, int64_t rows,
                          int64_t column, float* y) {
  const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26,
                                               28, 30);
  VecF product_scale[V], total_scale[V], constant[V];
  __m512i weight[2 * V];
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    const int64_t at = column + v * kLanes;
    product_scale[v] = load(p.product_scale + at);
    total_scale[v] = load(p.total_scale + at);
    constant[v] = load(p.constant + at);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 2 * V; ++i) weight[i] = _mm512_loadu_si512(p.panel + column + 8 * i);
  for (int64_t row = 0; row < rows; ++row, x += p.words) {
    const __m512i first = _mm512_set1_epi64(static_cast<int64_t>(x[0]));
    __m512i count[2 * V];
#pragma GCC unroll 6
    for (int i = 0; i < 2 * V; ++i) {
      count[i] = _mm512_popcnt_epi64(_mm512_and_si512(first, weight[i]));
    }
    for (int64_t w = 1; w < p.words; ++w) {
      const __m512i word = _mm512_set1_epi64(static_cast<int64_t>(x[w]));
      const uint64_t* panel = p.panel + w * p.width + column;
#pragma GCC unroll 6
      for (int i = 0; i < 2 * V; ++i) {
        const __m512i both = _mm512_and_si512(word, _mm512_loadu_si512(panel + 8 * i));
        count[i] = _mm512_add_epi64(count[i], _mm512_popcnt_epi64(both));
      }
    }
    const VecF total = splat(totals[row]);
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const __m512i sums = _mm512_permutex2var_epi32(count[2 * v], low_halves, count[2 * v + 1]);
      const VecF shift = fma(total_scale[v], total, constant[v]);
      const VecF value = fma(product_scale[v], VecF{_mm512_cvtepi32_ps(sums)}, shift);
      const int64_t at = column + v * kLanes, left = p.out - at;
      if (left >= kLanes) store(y + row * p.out + at, value);
      else store_first(y + row * p.out + at, value, static_cast<int>(left));
    }
  }
}

// weight: codes of `storage_bits`, each of the `out` rows starting on a byte.
static inline void pack_bits(const uint8_t* weight, int64_t storage_bits, int64_t in, int64_t out,
                             int64_t width, uint64_t* panel) {
  const int64_t words = (in + 63) / 64, row_bytes = (in * storage_bits + 7) / 8;
  std::memset(panel, 0, static_cast<size_t>(words * width) * sizeof(uint64_t));
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      const int64_t bit = i * storage_bits;
      const uint64_t code = weight[o * row_bytes + (bit >> 3)] >> (bit & 7) & 1;
      panel[i / 64 * width + o] |= code << (i % 64);
    }
  }
}

// The bits of `rows` rows of codes, as words of 64, and how many of each row are 1.
static inline void bits_and_totals(const BitLinear& p, const uint8_t* x, int64_t rows,
                                   uint64_t* bits, float* totals) {
  for (int64_t r = 0; r < rows; ++r) {
    int64_t total = 0;
    for (int64_t w = 0; w < p.words; ++w) {
      const int64_t left = p.in - 64 * w;
      const uint64_t word = bits_of(x + r * p.in + 64 * w, left < 64 ? left : 64);
      bits[r * p.words + w] = word;
      total += __builtin_popcountll(word);
    }
    totals[r] = static_cast<float>(total);
  }
}

static inline void run_bits(const BitLinear& p, const uint8_t* x, float* y, int64_t begin,
                            int64_t end) {
  constexpr int64_t kRows = 64;  // whose bits are taken first, then pass by each block of outputs
  uint64_t* bits = scratch<uint64_t>(kBitSlot, kRows * p.words);
  float totals[kRows];
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t rows = end - row < kRows ? end - row : kRows;
    bits_and_totals(p, x + row * p.in, rows, bits, totals);
    for (int64_t vector = 0, count = p.width / kLanes; vector < count;) {
      const int64_t wide = block_vectors(count - vector, kBitVectors), column = vector * kLanes;
      float* to = y + row * p.out;
      if (wide == 1) bit_block<1>(p, bits, totals, rows, column, to);
      else if (wide == 2) bit_block<2>(p, bits, totals, rows, column, to);
      else bit_block<3>(p, bits, totals, rows, column, to);
      vector += wide;
    }
  }
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512F__
