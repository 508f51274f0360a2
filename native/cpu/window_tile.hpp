// What the fast window attentions share. Queries lie in the lanes: a block is kBlock queries of one
// window and head, and every key is broadcast against it. So no product has a horizontal sum, head
// widths of 8, 10 and 12 waste no lane, and each query meets its keys one after the other in key
// order, whatever the instruction set: the sums of a query have the same bits everywhere.
// Per block, S(keys, kBlock) = logits, then weights: 16 KiB for a 16x16 window, half of L1.
// Layouts: q^T and gy^T as (head_dim, padded positions); k and v packed as (positions, head_dim).
#pragma once
#include "../core/exponent.hpp"
#include "../core/windows.hpp"
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectors = 1;    // vectors per block: one leaves registers for a whole q^T column
constexpr int kMixChunk = 12;  // head dimensions that mix() sums side by side, in registers
#elif defined(SPR2Q_NEON)
constexpr int kVectors = 4;    // four share each broadcast key; 16 queries a block, as AVX-512 has
constexpr int kMixChunk = 6;   // 24 sums, four weights and a broadcast of the 32 registers
#else
constexpr int kVectors = 2;    // two share each broadcast key, which costs a load of its own here
constexpr int kMixChunk = 6;   // 12 sums, two weights and a broadcast: the 16 registers there are
#endif
constexpr int kBlock = kVectors * kLanes;
constexpr int kKeyGroup = 4;   // keys side by side in products(): chains that hide an fma's latency

// exp2_shared, lane by lane: to the bit down to 2^-126 and, below, anything from 0 to that
// (kClamped: 2^-126). No code tells the difference; sums of float weights might.
template <bool kClamped = false>
inline VecF exp2_lanes(VecF x) {
#if !defined(__AVX512F__)
  x = max(splat(kExp2Floor), x);
#else
  if (kClamped) x = max(splat(kExp2Floor), x);
#endif
  const VecF t = x + splat(kRoundingMagic), n = t - splat(kRoundingMagic);
  const VecF r = x - n;
  VecF p = fma(splat(kExp2C5), r, splat(kExp2C4));
  p = fma(p, r, splat(kExp2C3));
  p = fma(p, r, splat(kExp2C2));
  p = fma(p, r, splat(kExp2C1));
  p = fma(p, r, splat(1.0f));
#if defined(__AVX512F__)
  return scale_pow2(p, n);
#elif defined(__AVX2__)
  const __m256i shift = _mm256_slli_epi32(_mm256_castps_si256(t.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), shift))};
#elif defined(SPR2Q_NEON)
  const int32x4_t shift = vshlq_n_s32(vreinterpretq_s32_f32(t.v), 23);
  return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p.v), shift))};
#else
  typedef uint32_t Bits4 __attribute__((vector_size(16)));
  return {(Float4)((Bits4)p.v + ((Bits4)t.v << 23))};
#endif
}

// Each pass is a function of its own: inlined into one another, their loops would spill.
#define SPR2Q_PASS __attribute__((noinline))

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where the bias of a vector of queries against key j lies: at(head, vector) + offset[j], kLanes
// contiguous floats. Where rows of the window are whole vectors, that is a stretch of the head's
// own table of (2w-1)^2: one column to the right in the query is one entry further. Otherwise the
// pairs are written out once per call as (vector, key, lane).
struct BiasLayout {
  Windows windows;
  bool direct;
  int64_t keys, vectors, head_size;

  explicit BiasLayout(const Windows& w) : windows(w), direct(w.window % kLanes == 0) {
    keys = w.positions();
    vectors = round_up(keys, kBlock) / kLanes;
    head_size = direct ? (2 * w.window - 1) * (2 * w.window - 1) : vectors * keys * kLanes;
  }
  int64_t at(int64_t head, int64_t vector) const {
    if (!direct) return head * head_size + vector * keys * kLanes;
    return head * head_size + windows.bias_row(vector * kLanes, windows.positions() - 1);
  }
  // Relative to the last key, whose place at() gives.
  void offsets(int32_t* offset) const {
    for (int64_t j = 0; j < keys; ++j) {
      offset[j] = static_cast<int32_t>(
          direct ? windows.bias_row(0, j) - windows.bias_row(0, keys - 1) : j * kLanes);
    }
  }
  // table(rows, heads) * factor -> this layout, heads one after the other.
  void spread(const float* table, int64_t heads, float factor, float* to) const {
    parallel_for(heads, 1, [&](int64_t head, int64_t) {
      float* out = to + head * head_size;
      if (direct) {
        for (int64_t row = 0; row < head_size; ++row) out[row] = table[row * heads + head] * factor;
        return;
      }
      for (int64_t p = 0; p < vectors * kLanes; ++p) {
        float* lane = out + p / kLanes * keys * kLanes + p % kLanes;
        for (int64_t j = 0; j < keys; ++j) {
          lane[j * kLanes] =
              p < keys ? table[windows.bias_row(p, j) * heads + head] * factor : 0.0f;
        }
      }
    });
  }
  // The way back: adds a gradient in this layout to gtable(rows, heads).
  void gather(const float* from, int64_t heads, int64_t head, float* gtable) const {
    from += head * head_size;
    if (direct) {
      for (int64_t row = 0; row < head_size; ++row) gtable[row * heads + head] += from[row];
      return;
    }
    for (int64_t p = 0; p < keys; ++p) {
      const float* lane = from + p / kLanes * keys * kLanes + p % kLanes;
      for (int64_t j = 0; j < keys; ++j) {
        gtable[windows.bias_row(p, j) * heads + head] += lane[j * kLanes];
      }
    }
  }
};

// One window's place in the tensors: the first value of each position's row, and its mask.
struct Place {
  int64_t* at;        // (positions): token * stride
  uint8_t* label;     // (positions)
  float* mask;        // (9 labels of the key, padded positions of the query), 0 or -100 * factor
  int64_t padded;
  bool masked;

  static int64_t floats(int64_t keys) {
    return 2 * keys + keys / 4 + 16 + 9 * round_up(keys, kBlock);
  }

  void lay_out(float* memory, int64_t keys) {
    padded = round_up(keys, kBlock);
    mask = memory;
    at = reinterpret_cast<int64_t*>(memory + 9 * padded);
    label = reinterpret_cast<uint8_t*>(at + keys);
  }
  void move_to(const Windows& windows, int64_t index, int64_t stride, float factor) {
    const int64_t w = windows.window, first = windows.token(index, 0);
    const int64_t sample = index / windows.per_sample() * windows.height * windows.width;
    const int64_t top = (first - sample) / windows.width, left = (first - sample) % windows.width;
    for (int64_t y = 0; y < w; ++y) {
      const int64_t row = top + y < windows.height ? top + y : top + y - windows.height;
      for (int64_t x = 0; x < w; ++x) {
        const int64_t column = left + x < windows.width ? left + x : left + x - windows.width;
        at[y * w + x] = (sample + row * windows.width + column) * stride;
      }
    }
    masked = windows.masked(index);
    if (!masked) return;
    for (int64_t p = 0; p < w * w; ++p) label[p] = static_cast<uint8_t>(windows.label(index, p));
    for (int64_t l = 0; l < 9; ++l) {
      for (int64_t p = 0; p < padded; ++p) {
        mask[l * padded + p] = p >= w * w || label[p] == l ? 0.0f : kWindowMask * factor;
      }
    }
  }
};

// ---- between rows of the tensors and packed operands ----
// Where head_dim fills D, four positions by four dimensions move at a time, transposed in
// registers; a last group overlaps the one before (D = 10). Other widths go value by value.

typedef float Quad __attribute__((vector_size(16)));
struct Square { Quad row[4]; };

inline Quad load_quad(const float* p) {
  Quad q;
  std::memcpy(&q, p, 16);
  return q;
}
inline Quad load_quad(const uint8_t* p) {
  return Quad{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
              static_cast<float>(p[3])};
}
inline void transpose(Square& s) {
  const Quad a = __builtin_shufflevector(s.row[0], s.row[1], 0, 4, 1, 5);
  const Quad b = __builtin_shufflevector(s.row[2], s.row[3], 0, 4, 1, 5);
  const Quad c = __builtin_shufflevector(s.row[0], s.row[1], 2, 6, 3, 7);
  const Quad d = __builtin_shufflevector(s.row[2], s.row[3], 2, 6, 3, 7);
  s.row[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  s.row[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  s.row[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  s.row[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}
inline void store_quad(float* p, Quad q) { std::memcpy(p, &q, 16); }
inline void store_quad(uint8_t* p, Quad q) {  // whole numbers
  typedef int32_t Quad32 __attribute__((vector_size(16)));
  typedef uint8_t Quad8 __attribute__((vector_size(4)));
  const Quad8 codes = __builtin_convertvector(__builtin_convertvector(q, Quad32), Quad8);
  std::memcpy(p, &codes, 4);
}
// First dimension of the i-th group of four.
template <int D>
constexpr int quad_at(int i) { return 4 * i + 4 <= D ? 4 * i : D - 4; }

// (positions, D) rows of one head, zeros behind head_dim; T is float or a code.
template <int D, class T>
SPR2Q_PASS void pack_rows(const T* from, const int64_t* at, int64_t keys, int64_t head_dim,
                          float* to) {
  for (int64_t j = 0; j < keys; ++j) {
    const T* row = from + at[j];
    if (head_dim == D) {
      for (int i = 0; i < (D + 3) / 4; ++i) {
        store_quad(to + j * D + quad_at<D>(i), load_quad(row + quad_at<D>(i)));
      }
    } else {
      for (int d = 0; d < D; ++d) to[j * D + d] = d < head_dim ? static_cast<float>(row[d]) : 0.0f;
    }
  }
}
// The same transposed and scaled: (D, padded).
template <int D, class T>
SPR2Q_PASS void pack_columns(const T* from, const int64_t* at, int64_t keys, int64_t padded,
                         int64_t head_dim, float factor, float* to) {
  int64_t j = 0;
  for (; head_dim == D && j + 4 <= keys; j += 4) {
    for (int i = 0; i < (D + 3) / 4; ++i) {
      Square s;
      for (int r = 0; r < 4; ++r) s.row[r] = load_quad(from + at[j + r] + quad_at<D>(i)) * factor;
      transpose(s);
      for (int r = 0; r < 4; ++r) store_quad(to + (quad_at<D>(i) + r) * padded + j, s.row[r]);
    }
  }
  for (; j < padded; ++j) {
    const T* row = from + at[j < keys ? j : 0];
    const int64_t here = j < keys ? head_dim : 0;
    for (int d = 0; d < D; ++d) {
      to[d * padded + j] = d < here ? static_cast<float>(row[d]) * factor : 0.0f;
    }
  }
}
// A block's result (D, kBlock) back into its rows, floats or codes.
template <int D, class T>
SPR2Q_PASS void unpack_block(const float* from, const int64_t* at, int64_t first, int64_t keys,
                         int64_t head_dim, T* to) {
  const int64_t count = keys - first < kBlock ? keys - first : kBlock;
  int64_t i = 0;
  for (; head_dim == D && i + 4 <= count; i += 4) {
    for (int d = 0; d < (D + 3) / 4; ++d) {
      Square s;
      for (int r = 0; r < 4; ++r) s.row[r] = load_quad(from + (quad_at<D>(d) + r) * kBlock + i);
      transpose(s);
      for (int r = 0; r < 4; ++r) store_quad(to + at[first + i + r] + quad_at<D>(d), s.row[r]);
    }
  }
  for (; i < count; ++i) {
    T* row = to + at[first + i];
    for (int64_t d = 0; d < head_dim; ++d) row[d] = static_cast<T>(from[d * kBlock + i]);
  }
}

// S[j] = finish(j, vector, start(j, vector) + sum_d columns[d] rows[j][d]) for all keys, d
// ascending; columns: (D, padded) at the block's first query. Returns the largest per query in
// `top`. Inlined by force: as a call, the lambdas' captures and `top` would live in memory.
template <int D, class Start, class Finish>
__attribute__((always_inline)) inline void products(const float* columns, int64_t padded,
                                                    const float* rows, int64_t keys, float* S,
                                                    VecF* top, const Start& start,
                                                    const Finish& finish) {
  VecF largest_so_far[kVectors];
  for (int v = 0; v < kVectors; ++v) largest_so_far[v] = splat(-3.4e38f);
#if defined(__AVX512F__)
  VecF column[D][kVectors];
  for (int d = 0; d < D; ++d) {
    for (int v = 0; v < kVectors; ++v) column[d][v] = load(columns + d * padded + v * kLanes);
  }
#define SPR2Q_COLUMN(d, v) column[d][v]
#else
#define SPR2Q_COLUMN(d, v) load(columns + d * padded + v * kLanes)
#endif
  int64_t j = 0;
  for (; j + kKeyGroup <= keys; j += kKeyGroup) {
    VecF sum[kKeyGroup][kVectors];
    for (int i = 0; i < kKeyGroup; ++i) {
      for (int v = 0; v < kVectors; ++v) sum[i][v] = start(j + i, v);
    }
#pragma GCC unroll 16
    for (int d = 0; d < D; ++d) {
#pragma GCC unroll 8
      for (int i = 0; i < kKeyGroup; ++i) {
        const VecF key = splat(rows[(j + i) * D + d]);
        for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(key, SPR2Q_COLUMN(d, v), sum[i][v]);
      }
    }
    for (int i = 0; i < kKeyGroup; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        const VecF value = finish(j + i, v, sum[i][v]);
        largest_so_far[v] = max(value, largest_so_far[v]);
        store(S + (j + i) * kBlock + v * kLanes, value);
      }
    }
  }
  for (; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      VecF sum = start(j, v);
      for (int d = 0; d < D; ++d) sum = fma(splat(rows[j * D + d]), SPR2Q_COLUMN(d, v), sum);
      const VecF value = finish(j, v, sum);
      largest_so_far[v] = max(value, largest_so_far[v]);
      store(S + j * kBlock + v * kLanes, value);
    }
  }
#undef SPR2Q_COLUMN
  for (int v = 0; v < kVectors; ++v) top[v] = largest_so_far[v];
}

// What a block's logits start from: the bias of each of its vectors and, in a window that holds
// more than one region, the mask.
struct Start {
  const float* bias[kVectors];
  const int32_t* offset;
  const float* mask;     // at the block's first query; null where nothing is masked
  const uint8_t* label;
  int64_t padded;

  Start(const BiasLayout& layout, const float* table, const int32_t* offsets, const Place& place,
        int64_t head, int64_t p) {
    for (int v = 0; v < kVectors; ++v) bias[v] = table + layout.at(head, p / kLanes + v);
    offset = offsets;
    mask = place.masked ? place.mask + p : nullptr;
    label = place.label;
    padded = place.padded;
  }
  template <bool kMasked>
  __attribute__((always_inline)) inline VecF at(int64_t j, int v) const {
    const VecF value = load(bias[v] + offset[j]);
    return kMasked ? value + load(mask + label[j] * padded + v * kLanes) : value;
  }
};

// S = bias (+ mask) + q . k and its largest value per query.
template <int D, bool kMasked>
SPR2Q_PASS void logits(const float* columns, const float* rows, int64_t keys, float* S, VecF* top,
                       const Start& from) {
  const Start start = from;  // by value: its pointers stay in registers
  products<D>(columns, start.padded, rows, keys, S, top,
              [&](int64_t j, int v) { return start.template at<kMasked>(j, v); },
              [](int64_t, int, VecF sum) { return sum; });
}

// out[d] = sum_j S[j] rows[j][d], keys ascending, as (D, kBlock).
template <int D>
SPR2Q_PASS void mix(const float* S, const float* rows, int64_t keys, float* out) {
  constexpr int kChunk = D <= kMixChunk ? D : D % kMixChunk == 0 ? kMixChunk : D % 5 == 0 ? 5 : 4;
  for (int first = 0; first < D; first += kChunk) {
    VecF sum[kChunk][kVectors];
    for (int d = 0; d < kChunk; ++d) {
      for (int v = 0; v < kVectors; ++v) sum[d][v] = splat(0.0f);
    }
    for (int64_t j = 0; j < keys; ++j) {
      VecF weight[kVectors];
      for (int v = 0; v < kVectors; ++v) weight[v] = load(S + j * kBlock + v * kLanes);
      for (int d = 0; d < kChunk; ++d) {
        const VecF value = splat(rows[j * D + first + d]);
        for (int v = 0; v < kVectors; ++v) sum[d][v] = fma(weight[v], value, sum[d][v]);
      }
    }
    for (int d = 0; d < kChunk; ++d) {
      for (int v = 0; v < kVectors; ++v) store(out + (first + d) * kBlock + v * kLanes, sum[d][v]);
    }
  }
}

// Calls body with the smallest instance of D that holds head_dim (<= 64).
#define SPR2Q_BY_HEAD_DIM(head_dim, Body, ...)                                  \
  (head_dim) == 12 ? Body<12>(__VA_ARGS__)                                      \
  : (head_dim) == 10 ? Body<10>(__VA_ARGS__)                                    \
  : (head_dim) <= 8 ? Body<8>(__VA_ARGS__)                                      \
  : (head_dim) <= 16 ? Body<16>(__VA_ARGS__)                                    \
  : (head_dim) <= 32 ? Body<32>(__VA_ARGS__)                                    \
                     : Body<64>(__VA_ARGS__)

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
