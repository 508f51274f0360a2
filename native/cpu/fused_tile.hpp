// The fused coded linear layer where one tile of registers holds whole rows (AVX-512, at most 64
// outputs): from the sums of products to the codes of the next layer nothing is stored in between.
#pragma once
#include "activations.hpp"
#include "code_product.hpp"
#include "levels.hpp"
#include "norm_rows.hpp"

#include <type_traits>

#if defined(__AVX512F__)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kMostVectors = 4;  // of a row that a tile can hold, as a norm wants it

// The quantiser of one output: a lower bound for each lane of a row.
struct TileCoder {
  uint8_t* codes;
  Levels levels;
  const float* lower;  // padded to whole vectors
  bool binary;
};

// What a tile does with its values; the fields of FusedCodedLinear that it needs, prepared.
struct TileChain {
  const float *added, *scale, *residual;  // scale padded to whole vectors
  float* y;
  const float *norm_weight, *norm_bias;
  TileCoder coders[2];
  int coder_count;
  bool gelu, scaled, past_caches;
  float factor;
  RowShape shape;
  bool halves;     // 48 outputs: y keeps the first 24 columns, norm and quantisers take the others
  RowShape half;
};

// Outputs [column, column + V vectors) of R rows; `shape` is that of the whole row.
template <bool kBinary, int R, int V, bool kTail>
__attribute__((always_inline)) static inline void code_tile(const TileCoder& coder, const VecF (&value)[R][V], int64_t row,
                             int64_t column, int64_t valid, const RowShape& shape) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const VecF lower = load(coder.lower + column + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (r >= valid) break;
      uint8_t* to = coder.codes + (row + r) * shape.channels + column + v * kLanes;
      const Levels& levels = coder.levels;
      if (kTail && v == V - 1) {
        store_codes_of<kBinary>(Part{shape.last}, to, value[r][v], lower, levels);
      } else {
        store_codes_of<kBinary>(Whole{}, to, value[r][v], lower, levels);
      }
    }
  }
}

// The same for whole tiles of whole vectors, whose codes lie side by side: four vectors become 64
// bytes by saturating packs. What those cut off at 0 (NaN becomes the least integer) needs no max.
template <int R, int V>
__attribute__((always_inline)) static inline void code_whole_tile(const TileCoder& coder, const VecF (&value)[R][V], int64_t row) {
  static_assert(R * V % 4 == 0, "vectors are packed by fours");
  const __m512i order =
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  uint8_t* to = coder.codes + row * V * kLanes;
#pragma GCC unroll 8
  for (int group = 0; group < R * V / 4; ++group) {
    __m512i codes[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * group + i;
      const VecF lower = load(coder.lower + at % V * kLanes);
      const VecF u = coder.levels.unclipped(value[at / V][at % V], lower);
      codes[i] = _mm512_cvtps_epi32(min(coder.levels.levels, u).v);
    }
    const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(codes[0], codes[1]),
                                              _mm512_packs_epi32(codes[2], codes[3]));
    _mm512_storeu_si512(to + 64 * group, _mm512_permutexvar_epi32(order, bytes));
  }
}

// The same at 1 bit: the flags of four vectors are 64 bytes.
template <int R, int V>
__attribute__((always_inline)) static inline void flag_whole_tile(const TileCoder& coder, const VecF (&value)[R][V], int64_t row) {
  static_assert(R * V % 4 == 0, "vectors are packed by fours");
  uint8_t* to = coder.codes + row * V * kLanes;
#pragma GCC unroll 8
  for (int group = 0; group < R * V / 4; ++group) {
    __mmask16 flags[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * group + i;
      const VecF lower = load(coder.lower + at % V * kLanes);
      const VecF u = coder.levels.unclipped(value[at / V][at % V], lower);
      flags[i] = _mm512_cmp_ps_mask(u.v, splat(kAboveHalf).v, _CMP_GE_OQ);
    }
    const __mmask32 low = _mm512_kunpackw(flags[1], flags[0]);
    const __mmask32 high = _mm512_kunpackw(flags[3], flags[2]);
    _mm512_storeu_si512(to + 64 * group, _mm512_maskz_set1_epi8(_mm512_kunpackd(high, low), 1));
  }
}

// Norm and quantisers on R rows in registers. kBits: behind a 1-bit product, where 1-bit codes are
// what most often follows.
template <bool kBits, int R, int V, bool kTail>
__attribute__((always_inline)) static inline void norm_and_code(const TileChain& chain,
                                                                VecF (&value)[R][V], int64_t row,
                                                                int64_t column, int64_t valid,
                                                                const RowShape& shape) {
  if (chain.norm_weight) {
#pragma GCC unroll 2
    for (int q = 0; q < R / kQuad; ++q) {
      VecF(&quad)[kQuad][V] = reinterpret_cast<VecF(&)[kQuad][V]>(value[q * kQuad]);
      normalise_quad<V, kTail>(quad, chain.norm_weight, chain.norm_bias, shape);
    }
  }
  for (int i = 0; i < chain.coder_count; ++i) {
    const TileCoder& coder = chain.coders[i];
    const bool whole = !kTail && valid >= R && shape.vectors == V;
    if (kBits && coder.binary && whole) {
      flag_whole_tile<R, V>(coder, value, row);
    } else if (coder.binary) {
      code_tile<true, R, V, kTail>(coder, value, row, column, valid, shape);
    } else if (whole) {
      code_whole_tile<R, V>(coder, value, row);
    } else {
      code_tile<false, R, V, kTail>(coder, value, row, column, valid, shape);
    }
  }
}

// Rows of 48 values: the first 24 to y, the others to norm and quantisers.
template <bool kBits, int R>
__attribute__((always_inline)) static inline void split_rows(const TileChain& chain, const VecF (&value)[R][3], int64_t row,
                              int64_t valid) {
  constexpr int kHalf = 24;
  VecF rest[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const __m512i first = _mm512_castps_si512(value[r][0].v);
    const __m512i middle = _mm512_castps_si512(value[r][1].v);
    const __m512i last = _mm512_castps_si512(value[r][2].v);
    rest[r][0] = {_mm512_castsi512_ps(_mm512_alignr_epi32(last, middle, 8))};
    rest[r][1] = {_mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_setzero_si512(), last, 8))};
    if (r >= valid) continue;
    __m256i* to = reinterpret_cast<__m256i*>(chain.y + (row + r) * kHalf);
    const __m256i parts[3] = {_mm512_castsi512_si256(first), _mm512_extracti64x4_epi64(first, 1),
                              _mm512_castsi512_si256(middle)};
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      if (chain.past_caches) _mm256_stream_si256(to + i, parts[i]);
      else _mm256_storeu_si256(to + i, parts[i]);
    }
  }
  norm_and_code<kBits, R, 2, true>(chain, rest, row, 0, valid, chain.half);
}

// From the values of a product on: outputs [column, column + V vectors) of the rows from `row` on.
template <bool kBits, int R, int V, bool kTail>
__attribute__((always_inline)) static inline void finish_tile(const TileChain& chain,
                                                              VecF (&value)[R][V], int64_t row,
                                                              int64_t column, int64_t valid) {
  const RowShape& shape = chain.shape;
  const auto each = [&](auto body) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const int64_t at = (row + (r < valid ? r : valid - 1)) * shape.channels + column;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) body(value[r][v], at, v);
    }
  };
  if (chain.gelu) each([&](VecF& x, int64_t, int) { x = gelu_of(x); });
  if (chain.scaled) each([&](VecF& x, int64_t, int) { x = splat(chain.factor) * x; });
  if (chain.added) {
    each([&](VecF& x, int64_t at, int v) {
      x = x + load_vector<kTail>(chain.added + at, v, V, shape);
    });
  }
  if (chain.residual) {
    each([&](VecF& x, int64_t at, int v) {
      const VecF residual = load_vector<kTail>(chain.residual + at, v, V, shape);
      x = fma(load(chain.scale + column + v * kLanes), residual, x);
    });
  }
  if constexpr (V == 3 && !kTail) {
    if (chain.halves) return split_rows<kBits, R>(chain, value, row, valid);
  }
  if (chain.y) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (r >= valid) break;
      float* to = chain.y + (row + r) * shape.channels + column;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if (!kTail && chain.past_caches) _mm512_stream_ps(to + v * kLanes, value[r][v].v);
        else store_vector<kTail>(to, value[r][v], v, V, shape);
      }
    }
  }
  norm_and_code<kBits, R, V, kTail>(chain, value, row, column, valid, shape);
}

// Outputs [column, column + V vectors) of rows [first, first + R) of the tile that begins with `row`:
// all outputs where there is a norm. A function of its own, as tile_block.
template <class Dot, int R, int V, bool kTail>
__attribute__((noinline)) static void chain_tile(const TileChain& chain, const Plan& plan,
                                                 const Rows<typename Dot::Input>& rows, int64_t row,
                                                 int first, int64_t column) {
  const int64_t valid = rows.valid - first;
  VecI sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = splat_int(rows.starts[first + r]);
  }
  const auto* panel = static_cast<const typename Dot::Weight*>(plan.panel) + column * Dot::kCodes;
  Dot::template accumulate<R, V>(sum, rows.codes + first, panel, plan.width * Dot::kCodes,
                                 plan.steps, plan.safe_steps);
  VecF value[R][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const int64_t at = column + v * kLanes;
    const VecF product_scale = load(plan.product_scale + at);
    const VecF total_scale = load(plan.total_scale + at), constant = load(plan.constant + at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VecF shift = fma(total_scale, splat(rows.totals[first + r]), constant);
      value[r][v] = fma(product_scale, to_float(sum[r][v]), shift);
    }
  }
  finish_tile<false, R, V, kTail>(chain, value, row + first, column, valid);
}

template <class Dot, int V>
static inline void chain_block(const TileChain& chain, const Plan& plan,
                               const Rows<typename Dot::Input>& rows, int64_t row, int64_t column) {
  constexpr int R = V == 4 ? kTileRows / 2 : kTileRows;  // 24 or 16 sums beside the weights
  const bool tail = column + V * kLanes > chain.shape.channels;
  for (int first = 0; first < rows.valid; first += R) {
    if (tail) chain_tile<Dot, R, V, true>(chain, plan, rows, row, first, column);
    else chain_tile<Dot, R, V, false>(chain, plan, rows, row, first, column);
  }
}

// The same on 1-bit codes: x (rows, words) are the rows' bits, totals the numbers of ones.
template <int R, int V, bool kTail>
SPR2Q_BITS void count_tile(const TileChain& chain, const BitLinear& p, const uint64_t* x,
                                  const float* totals, int64_t row, int64_t valid,
                                  int64_t column) {
  const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26,
                                               28, 30);
  VecF value[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t from = r < valid ? r : valid - 1;
    const __m512i first = _mm512_set1_epi64(static_cast<int64_t>(x[from * p.words]));
    const VecF total = splat(totals[from]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t at = column + v * kLanes;
      __m512i count[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const __m512i both = _mm512_and_si512(first, _mm512_loadu_si512(p.panel + at + 8 * i));
        count[i] = _mm512_popcnt_epi64(both);
        for (int64_t w = 1; w < p.words; ++w) {
          const __m512i word = _mm512_set1_epi64(static_cast<int64_t>(x[from * p.words + w]));
          const uint64_t* panel = p.panel + w * p.width + at + 8 * i;
          const __m512i more = _mm512_and_si512(word, _mm512_loadu_si512(panel));
          count[i] = _mm512_add_epi64(count[i], _mm512_popcnt_epi64(more));
        }
      }
      const __m512i sums = _mm512_permutex2var_epi32(count[0], low_halves, count[1]);
      const VecF shift = fma(load(p.total_scale + at), total, load(p.constant + at));
      value[r][v] = fma(load(p.product_scale + at), VecF{_mm512_cvtepi32_ps(sums)}, shift);
    }
  }
  finish_tile<true, R, V, kTail>(chain, value, row, column, valid);
}

template <int V>
static inline void count_block(const TileChain& chain, const BitLinear& p, const uint64_t* x,
                               const float* totals, int64_t row, int64_t rows, int64_t column) {
  constexpr int R = V == 4 ? kTileRows / 2 : kTileRows;
  const bool tail = column + V * kLanes > chain.shape.channels;
  for (int64_t r = 0; r < rows; r += R) {
    const uint64_t* bits = x + r * p.words;
    if (tail) count_tile<R, V, true>(chain, p, bits, totals + r, row + r, rows - r, column);
    else count_tile<R, V, false>(chain, p, bits, totals + r, row + r, rows - r, column);
  }
}

// Calls block(V, column) for the blocks of outputs of a row: one up to kMostVectors, else several of
// nearly equal width.
template <class Block>
static inline void each_column(const TileChain& chain, Block block) {
  const int64_t vectors = chain.shape.vectors;
  for (int64_t vector = 0; vector < vectors;) {
    const int64_t left = vectors - vector, column = vector * kLanes;
    const int64_t wide = vectors <= kMostVectors ? vectors : block_vectors(left, kTileVectors);
    switch (wide) {
      case 1: block(std::integral_constant<int, 1>(), column); break;
      case 2: block(std::integral_constant<int, 2>(), column); break;
      case 3: block(std::integral_constant<int, 3>(), column); break;
      default: block(std::integral_constant<int, 4>(), column); break;
    }
    vector += wide;
  }
}

// Up to a tile of rows of the 1-bit product.
static inline void count_rows(const TileChain& chain, const BitLinear& p, const uint8_t* x,
                              int64_t row, int64_t rows) {
  uint64_t* bits = scratch<uint64_t>(kBitSlot, kTileRows * p.words);
  float totals[kTileRows];
  bits_and_totals(p, x + row * p.in, rows, bits, totals);
  each_column(chain, [&](auto wide, int64_t column) {
    count_block<decltype(wide)::value>(chain, p, bits, totals, row, rows, column);
  });
}

template <class Dot>
static inline void chain_rows(const TileChain& chain, const Plan& plan,
                              const Rows<typename Dot::Input>& rows, int64_t row) {
  each_column(chain, [&](auto wide, int64_t column) {
    chain_block<Dot, decltype(wide)::value>(chain, plan, rows, row, column);
  });
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512F__
