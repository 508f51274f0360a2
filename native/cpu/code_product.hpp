// The product of coded linear layers: exact int32 sums of integer codes, then the float epilogue of
// ops.hpp. The panel holds the codes of kCodes successive inputs side by side for each output, the
// shape that the dot-product instructions want, behind the three vectors of the epilogue:
//   AVX-512     vpdpbusd: 4 codes a step, u8 x s8 into int32; 8-bit weights are stored minus 128
//               and 128 * total is added back.
//   AVX2 narrow maddubs: 4 codes a step into int16, widened before it can overflow (4-bit codes:
//               never below 288 inputs). Where two products could overflow: AVX2 wide, 2 codes a
//               step as int16 pairs.
//   NEON        udot or, where that is missing, umlal: neon_coded_linear.hpp.
//   portable    1 code a step, plain ints.
// A tile of rows x vectors of outputs stays in registers, as in panel.hpp.
#pragma once
#include "panel.hpp"

#include "bit_choice.hpp"
#include "bit_linear.hpp"
#include "neon_bit_linear.hpp"
#include "neon_coded_linear.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

typedef float VecOfFloats __attribute__((vector_size(4 * kLanes)));
static inline VecF to_float(VecI a) {
  return {(decltype(VecF::v))__builtin_convertvector(a, VecOfFloats)};
}

[[maybe_unused]] static inline int32_t four_codes(const uint8_t* p) {
  int32_t group;
  std::memcpy(&group, p, 4);
  return group;
}

// How one step multiplies. Weight: type of a code in the panel. Input: type of a code of x.
// accumulate() adds `steps` steps to sum[R][V]; rows[r] are the inputs, `stride` bytes a panel row.
#if defined(__AVX512F__)
struct Vnni {
  typedef int8_t Weight;
  typedef uint8_t Input;
  static constexpr int kCodes = 4;
  template <int R, int V>
  static inline void accumulate(VecI (&sum)[R][V], const uint8_t* const* rows, const int8_t* panel,
                                int64_t stride, int64_t steps, int64_t) {
    for (int64_t k = 0; k < steps; ++k, panel += stride) {
      __m512i weight[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) weight[v] = _mm512_loadu_si512(panel + v * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i x = _mm512_set1_epi32(four_codes(rows[r] + 4 * k));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          sum[r][v] = (VecI)_mm512_dpbusd_epi32((__m512i)sum[r][v], x, weight[v]);
        }
      }
    }
  }
};
#elif defined(__AVX2__)
static inline __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
struct Narrow {
  typedef int8_t Weight;
  typedef uint8_t Input;
  static constexpr int kCodes = 4;
  template <int R, int V>
  static inline void accumulate(VecI (&sum)[R][V], const uint8_t* const* rows, const int8_t* panel,
                                int64_t stride, int64_t steps, int64_t safe_steps) {
    typedef int16_t VecS __attribute__((vector_size(32)));
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t first = 0; first < steps; first += safe_steps) {
      const int64_t last = first + safe_steps < steps ? first + safe_steps : steps;
      VecS part[R][V] = {};
      for (int64_t k = first; k < last; ++k, panel += stride) {
        __m256i weight[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) weight[v] = load_bytes(panel + v * 32);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m256i x = _mm256_set1_epi32(four_codes(rows[r] + 4 * k));
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) part[r][v] += (VecS)_mm256_maddubs_epi16(x, weight[v]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          sum[r][v] += (VecI)_mm256_madd_epi16((__m256i)part[r][v], ones);
        }
      }
    }
  }
};
struct Wide {
  typedef int16_t Weight;
  typedef int16_t Input;
  static constexpr int kCodes = 2;
  template <int R, int V>
  static inline void accumulate(VecI (&sum)[R][V], const int16_t* const* rows, const int16_t* panel,
                                int64_t stride, int64_t steps, int64_t) {
    for (int64_t k = 0; k < steps; ++k, panel += stride) {
      __m256i weight[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) weight[v] = load_bytes(panel + v * 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, rows[r] + 2 * k, 4);
        const __m256i x = _mm256_set1_epi32(pair);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] += (VecI)_mm256_madd_epi16(x, weight[v]);
      }
    }
  }
};
#elif !defined(SPR2Q_NEON)
struct Plain {
  typedef int16_t Weight;
  typedef uint8_t Input;
  static constexpr int kCodes = 1;
  template <int R, int V>
  static inline void accumulate(VecI (&sum)[R][V], const uint8_t* const* rows, const int16_t* panel,
                                int64_t stride, int64_t steps, int64_t) {
    typedef int16_t VecS __attribute__((vector_size(2 * kLanes)));
    for (int64_t k = 0; k < steps; ++k, panel += stride) {
      VecI weight[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        VecS narrow;
        std::memcpy(&narrow, panel + v * kLanes, sizeof(narrow));
        weight[v] = __builtin_convertvector(narrow, VecI);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] += splat_int(rows[r][k]) * weight[v];
      }
    }
  }
};
#endif

// Everything that does not depend on the rows. The three vectors of the epilogue are padded.
struct Plan {
  void* panel;  // (steps, width, kCodes)
  float *product_scale, *total_scale, *constant;
  int64_t in, out, width, steps, safe_steps;
  int32_t weight_offset;  // what was subtracted from the weight codes
};

// Calls body(plan, Dot) with the dot product for these bits, over the memory of `packed`.
template <class Args, class Body>
static void with_dot(const Args& a, Body body) {
  Plan plan = {};
  plan.in = a.in;
  plan.out = a.out;
  plan.width = padded(a.out);
  plan.product_scale = reinterpret_cast<float*>(a.packed.data);
  plan.total_scale = plan.product_scale + plan.width;
  plan.constant = plan.total_scale + plan.width;
  plan.panel = plan.constant + plan.width;
  const auto with = [&](auto dot) {
    plan.steps = (a.in + decltype(dot)::kCodes - 1) / decltype(dot)::kCodes;
    body(plan, dot);
  };
#if defined(__AVX512F__)
  plan.weight_offset = a.weight_bits == 8 ? 128 : 0;
  with(Vnni());
#elif defined(__AVX2__)
  const int64_t x_top = (1 << a.x_bits) - 1;
  const int64_t weight_top = a.weight_bits == 8 ? 128 : (1 << a.weight_bits) - 1;
  plan.safe_steps = 32767 / (2 * x_top * weight_top);  // a step adds two products to an int16
  if (plan.safe_steps > 0) {
    plan.weight_offset = a.weight_bits == 8 ? 128 : 0;
    with(Narrow());
  } else {
    with(Wide());
  }
#elif defined(SPR2Q_NEON)
  const int64_t x_top = (1 << a.x_bits) - 1, weight_top = (1 << a.weight_bits) - 1;
  plan.safe_steps = ByteSums::room(x_top * weight_top);
  with(NeonBytes());
#else
  with(Plain());
#endif
}

// Tile of rows x vectors of outputs: the sums, a vector of weights each and one broadcast must fit
// the registers (32 with AVX-512 and NEON, else 16). Without udot, NEON's sums are two registers each.
#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 3;
#elif defined(SPR2Q_NEON) && defined(__ARM_FEATURE_DOTPROD)
constexpr int kTileRows = 6, kTileVectors = 4;
#elif defined(SPR2Q_NEON)
constexpr int kTileRows = 4, kTileVectors = 3;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileVectors = 3;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

#if defined(__AVX512F__)
// totals[r] = sum of the n codes at rows[r]: sums of eight bytes each, then across the register for
// all eight rows together.
static inline void code_totals(const uint8_t* const (&rows)[kTileRows], int64_t n,
                               int32_t* totals) {
  static_assert(kTileRows == 8, "one 64-bit lane a row");
  const __m512i zero = _mm512_setzero_si512();
  __m512i sums[kTileRows];
  const __mmask64 rest = n % 64 ? (1ull << (n % 64)) - 1 : 0;
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    sums[r] = _mm512_sad_epu8(_mm512_maskz_loadu_epi8(rest, rows[r] + n / 64 * 64), zero);
  }
  for (int64_t i = 0; i + 64 <= n; i += 64) {
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i codes = _mm512_loadu_si512(rows[r] + i);
      sums[r] = _mm512_add_epi64(sums[r], _mm512_sad_epu8(codes, zero));
    }
  }
  const auto pairs = [](__m512i x, __m512i y) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
  };
  const auto fold = [](__m512i x, __m512i y) {
    return _mm512_add_epi64(_mm512_shuffle_i64x2(x, y, 0x88), _mm512_shuffle_i64x2(x, y, 0xdd));
  };
  const __m512i low = fold(pairs(sums[0], sums[1]), pairs(sums[2], sums[3]));
  const __m512i high = fold(pairs(sums[4], sums[5]), pairs(sums[6], sums[7]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(totals), _mm512_cvtepi64_epi32(fold(low, high)));
}
#else
#if !defined(SPR2Q_NEON)  // which has its own, in neon_dot.hpp
static inline int32_t code_total(const uint8_t* row, int64_t n) {
  int64_t i = 0;
  int32_t total = 0;
#if defined(__AVX2__)
  const __m128i zero = _mm_setzero_si128();
  __m128i sums = zero;
  for (; i + 16 <= n; i += 16) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i));
    sums = _mm_add_epi64(sums, _mm_sad_epu8(codes, zero));
  }
  if (i + 8 <= n) {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + i));
    sums = _mm_add_epi64(sums, _mm_sad_epu8(codes, zero));
    i += 8;
  }
  total = _mm_cvtsi128_si32(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums)));
#endif
  for (; i < n; ++i) total += row[i];
  return total;
}
#endif
static inline void code_totals(const uint8_t* const (&rows)[kTileRows], int64_t n,
                               int32_t* totals) {
  for (int r = 0; r < kTileRows; ++r) totals[r] = code_total(rows[r], n);
}
#endif

// One tile's rows: their codes, the value their sums start from, and their totals as floats.
template <class Input>
struct Rows {
  const Input* codes[kTileRows];
  int32_t starts[kTileRows];
  float totals[kTileRows];
  int64_t valid;
};

// Outputs [column, column + V vectors) of one tile of rows. A function of its own: inlined, its sums
// would share the registers with its caller's values, and one would live in memory.
// kAhead: asks for the lines where the tile after this one goes; the stores would wait for them.
template <class Dot, int V, bool kAhead>
__attribute__((noinline)) static void tile_block(const Plan& plan,
                                                 const Rows<typename Dot::Input>& rows, float* y,
                                                 int64_t column) {
  constexpr int R = kTileRows;
  VecI sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = splat_int(rows.starts[r]);
    for (int v = 0; kAhead && v < V; ++v) {
      __builtin_prefetch(y + (R + r) * plan.out + column + v * kLanes, 1);
    }
  }
  const auto* panel = static_cast<const typename Dot::Weight*>(plan.panel) + column * Dot::kCodes;
  Dot::template accumulate<R, V>(sum, rows.codes, panel, plan.width * Dot::kCodes, plan.steps,
                                 plan.safe_steps);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const int64_t at = column + v * kLanes, left = plan.out - at;
    const VecF product_scale = load(plan.product_scale + at);
    const VecF total_scale = load(plan.total_scale + at), constant = load(plan.constant + at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VecF shift = fma(total_scale, splat(rows.totals[r]), constant);
      const VecF value = fma(product_scale, to_float(sum[r][v]), shift);
      if (r < rows.valid) store_tile_row<1>(y + r * plan.out + at, &value, left);
    }
  }
}

template <class Dot, bool kAhead>
static inline void tile(const Plan& plan, const Rows<typename Dot::Input>& rows, float* y) {
  for (int64_t vector = 0, count = plan.width / kLanes; vector < count;) {
    const int64_t wide = block_vectors(count - vector, kTileVectors), column = vector * kLanes;
    switch (wide) {
      case 1: tile_block<Dot, 1, kAhead>(plan, rows, y, column); break;
      case 2: tile_block<Dot, 2, kAhead>(plan, rows, y, column); break;
#if defined(__AVX2__) || defined(SPR2Q_NEON)
      case 3: tile_block<Dot, 3, kAhead>(plan, rows, y, column); break;
#endif
#if defined(SPR2Q_NEON) && defined(__ARM_FEATURE_DOTPROD)
      case 4: tile_block<Dot, 4, kAhead>(plan, rows, y, column); break;
#endif
    }
    vector += wide;
  }
}
// All rows of the input, codes one a byte.
struct PackedCodes {
  const uint8_t* x;
  int64_t rows;
};

// The rows of one tile, `valid` from `row` on. They are read in place, in whole steps; the bytes past
// a row's end meet weight 0. A tile whose last step would leave the tensor is copied first, and so
// is every tile whose codes are widened. `slot`: of the thread.
template <class Dot>
static inline Rows<typename Dot::Input> rows_of(const Plan& plan, const PackedCodes& a, int64_t row,
                                                int64_t valid, int slot) {
  typedef typename Dot::Input Input;
  const int64_t copy_step = plan.steps * Dot::kCodes;
  const uint8_t* x = a.x + row * plan.in;
  const bool leaves = (row + valid - 1) * plan.in + copy_step > a.rows * plan.in;
  const bool copied = leaves || sizeof(Input) > 1;
  Rows<Input> rows;
  rows.valid = valid;
  const uint8_t* from[kTileRows];
  for (int r = 0; r < kTileRows; ++r) from[r] = x + (r < valid ? r : valid - 1) * plan.in;
  int32_t totals[kTileRows];
  code_totals(from, plan.in, totals);
  for (int r = 0; r < kTileRows; ++r) {
    rows.starts[r] = plan.weight_offset * totals[r];
    rows.totals[r] = static_cast<float>(totals[r]);
    rows.codes[r] = reinterpret_cast<const Input*>(from[r]);
  }
  Input* copy = copied ? scratch<Input>(slot, kTileRows * copy_step) : nullptr;
  for (int r = 0; copied && r < kTileRows; ++r) {
    rows.codes[r] = copy + r * copy_step;
    for (int64_t i = 0; i < copy_step; ++i) {
      copy[r * copy_step + i] = i < plan.in ? static_cast<Input>(from[r][i]) : Input(0);
    }
  }
  return rows;
}

// Rows [begin, end) of y(rows,out), `y` being that of row `begin`.
template <class Dot, bool kAhead>
static inline void product_rows(const Plan& plan, const PackedCodes& a, int64_t begin, int64_t end,
                                float* y, int slot) {
  for (int64_t row = begin; row < end; row += kTileRows, y += kTileRows * plan.out) {
    const int64_t valid = end - row < kTileRows ? end - row : kTileRows;
    tile<Dot, kAhead>(plan, rows_of<Dot>(plan, a, row, valid, slot), y);
  }
}

#if defined(__AVX512F__)
// 1-bit codes by 1-bit codes have a path of their own where ones can be counted and that is faster.
template <class Args>
static bool is_binary(const Args& a) {
  return a.x_bits == 1 && a.weight_bits == 1 && has_bit_counts() && counting_is_faster(a.in, a.out);
}
static BitLinear bit_linear(const Plan& plan) {
  return {static_cast<const uint64_t*>(plan.panel), plan.product_scale, plan.total_scale,
          plan.constant, plan.in, plan.out, plan.width, (plan.in + 63) / 64};
}
#elif defined(SPR2Q_NEON)
template <class Args>
static bool is_binary(const Args& a) {
  return a.x_bits == 1 && a.weight_bits == 1 && a.in <= kMostBitInputs;
}
static BitLinear bit_linear(const Plan& plan) {
  return {static_cast<const uint8_t*>(plan.panel), plan.product_scale, plan.total_scale,
          plan.constant, plan.in, plan.out, plane_width(plan.out), (plan.in + 7) / 8};
}
#endif

// Calls body(begin, end, y) -> rows [begin, end) of the product to `y`: see product_rows.
template <bool kAhead, class Args, class Body>
static void with_product(const Args& a, int slot, Body body) {
  with_dot(a, [&](Plan plan, auto dot) {
    typedef decltype(dot) Dot;
#if defined(__AVX512F__) || defined(SPR2Q_NEON)
    if (is_binary(a)) {
      const BitLinear bits = bit_linear(plan);
      body([&](int64_t begin, int64_t end, float* y) {
        run_bits(bits, a.x.data, y - begin * a.out, begin, end);
      });
      return;
    }
#endif
    const PackedCodes codes = {a.x.data, a.rows};
    body([&](int64_t begin, int64_t end, float* y) {
      product_rows<Dot, kAhead>(plan, codes, begin, end, y, slot);
    });
  });
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
