// The fused coded linear layer where one tile of registers holds whole rows (AVX-512, at most 64
// outputs): from the sums of products to the codes of the next layer nothing is stored in between.
#pragma once
#include "activations.hpp"
#include "code_product.hpp"
#include "levels.hpp"
#include "norm_rows.hpp"

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
static inline void code_tile(const TileCoder& coder, const VecF (&value)[R][V], int64_t row,
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
static inline void code_whole_tile(const TileCoder& coder, const VecF (&value)[R][V], int64_t row) {
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

// Norm and quantisers on R rows in registers.
template <int R, int V, bool kTail>
static inline void norm_and_code(const TileChain& chain, VecF (&value)[R][V], int64_t row,
                                 int64_t column, int64_t valid, const RowShape& shape) {
  if (chain.norm_weight) {
#pragma GCC unroll 2
    for (int q = 0; q < R / kQuad; ++q) {
      VecF(&quad)[kQuad][V] = reinterpret_cast<VecF(&)[kQuad][V]>(value[q * kQuad]);
      normalise_quad<V, kTail>(quad, chain.norm_weight, chain.norm_bias, shape);
    }
  }
  for (int i = 0; i < chain.coder_count; ++i) {
    const TileCoder& coder = chain.coders[i];
    if (coder.binary) {
      code_tile<true, R, V, kTail>(coder, value, row, column, valid, shape);
    } else if (!kTail && valid >= R && shape.vectors == V) {
      code_whole_tile<R, V>(coder, value, row);
    } else {
      code_tile<false, R, V, kTail>(coder, value, row, column, valid, shape);
    }
  }
}

// Rows of 48 values: the first 24 to y, the others to norm and quantisers.
template <int R>
static inline void split_rows(const TileChain& chain, const VecF (&value)[R][3], int64_t row,
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
  norm_and_code<R, 2, true>(chain, rest, row, 0, valid, chain.half);
}

// Outputs [column, column + V vectors) of rows [first, first + R) of the tile that begins with `row`:
// all outputs where there is a norm. A function of its own, as tile_block.
template <class Dot, int R, int V, bool kTail>
__attribute__((noinline)) static void chain_tile(const TileChain& chain, const Plan& plan,
                                                 const Rows<typename Dot::Input>& rows, int64_t row,
                                                 int first, int64_t column) {
  const RowShape& shape = chain.shape;
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
  const auto each = [&](auto body) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const int64_t at = (row + first + (r < valid ? r : valid - 1)) * shape.channels + column;
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
    if (chain.halves) return split_rows<R>(chain, value, row + first, valid);
  }
  if (chain.y) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (r >= valid) break;
      float* to = chain.y + (row + first + r) * shape.channels + column;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if (!kTail && chain.past_caches) _mm512_stream_ps(to + v * kLanes, value[r][v].v);
        else store_vector<kTail>(to, value[r][v], v, V, shape);
      }
    }
  }
  norm_and_code<R, V, kTail>(chain, value, row + first, column, valid, shape);
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
// A tile's rows: in one block up to kMostVectors, else in blocks of nearly equal width.
template <class Dot>
static inline void chain_rows(const TileChain& chain, const Plan& plan,
                              const Rows<typename Dot::Input>& rows, int64_t row) {
  const int64_t vectors = chain.shape.vectors;
  for (int64_t vector = 0; vector < vectors;) {
    const int64_t left = vectors - vector, column = vector * kLanes;
    const int64_t wide = vectors <= kMostVectors ? vectors : block_vectors(left, kTileVectors);
    switch (wide) {
      case 1: chain_block<Dot, 1>(chain, plan, rows, row, column); break;
      case 2: chain_block<Dot, 2>(chain, plan, rows, row, column); break;
      case 3: chain_block<Dot, 3>(chain, plan, rows, row, column); break;
      default: chain_block<Dot, 4>(chain, plan, rows, row, column); break;
    }
    vector += wide;
  }
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512F__
