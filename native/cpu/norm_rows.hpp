// Layer normalisation of rows that lie side by side, for the op of that name and for those that have
// it fused in: the same bits in both. A row is a few vectors (48 channels = 3 of AVX-512), read
// three times from L1: mean, variance of the centred values (never mean of squares: activations
// have means far above their deviation), output. The number of vectors is a template argument
// where it is common, so that the row loops unroll and the row stays in registers.
#pragma once
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr float kEpsilon = 1e-5f;        // added to the variance, as in both backbones

// How a row of `channels` is cut into vectors: the last has `last` lanes, `mask` is 1 in them.
struct RowShape {
  int64_t channels;
  int vectors, last;
  VecF mask;
};

static RowShape row_shape(int64_t channels) {
  const int vectors = static_cast<int>((channels + kLanes - 1) / kLanes);
  const int last = static_cast<int>(channels - static_cast<int64_t>(vectors - 1) * kLanes);
  float ones[kLanes];
  for (int i = 0; i < kLanes; ++i) ones[i] = i < last ? 1.0f : 0.0f;
  return {channels, vectors, last, load(ones)};
}

// Vector i of a row; with kTail the last one is partial and its other lanes are 0.
template <bool kTail>
static inline VecF load_vector(const float* p, int i, int vectors, const RowShape& shape) {
  return kTail && i == vectors - 1 ? load_first(p + i * kLanes, shape.last) : load(p + i * kLanes);
}
template <bool kTail>
static inline void store_vector(float* p, VecF a, int i, int vectors, const RowShape& shape) {
  if (kTail && i == vectors - 1) {
    store_first(p + i * kLanes, a, shape.last);
  } else {
    store(p + i * kLanes, a);
  }
}

struct Moments {
  VecF mean, reciprocal;
};

template <bool kTail>
static inline Moments moments(const float* x, int vectors, const RowShape& shape) {
  const float share = 1.0f / static_cast<float>(shape.channels);
  VecF total = splat(0.0f);
  for (int i = 0; i < vectors; ++i) total = total + load_vector<kTail>(x, i, vectors, shape);
  const VecF mean = splat(sum(total) * share);
  VecF squares = splat(0.0f);
  for (int i = 0; i < vectors; ++i) {
    VecF d = load_vector<kTail>(x, i, vectors, shape) - mean;
    if (kTail && i == vectors - 1) d = d * shape.mask;
    squares = fma(d, d, squares);
  }
  const float variance = sum(squares) * share;
  return {mean, splat(1.0f / __builtin_sqrtf(variance + kEpsilon))};
}

template <int kVectors, bool kTail>
static void normalise(const LayerNorm& a, const RowShape& shape, int64_t begin, int64_t end) {
  const int vectors = kVectors > 0 ? kVectors : shape.vectors;
  const float *weight = a.weight.data, *bias = a.bias.data;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x.data + row * shape.channels;
    float* y = a.y.data + row * shape.channels;
    const Moments m = moments<kTail>(x, vectors, shape);
    for (int i = 0; i < vectors; ++i) {
      const VecF h = (load_vector<kTail>(x, i, vectors, shape) - m.mean) * m.reciprocal;
      store_vector<kTail>(y, fma(h, load_vector<kTail>(weight, i, vectors, shape),
                                 load_vector<kTail>(bias, i, vectors, shape)),
                          i, vectors, shape);
    }
  }
}

#if defined(__AVX512F__)
// Four rows at once: their sums share the shuffles, their square roots one instruction.
constexpr int64_t kQuad = 4;

// Lane group r of four holds the sum of vector r, four times.
static inline VecF sums_of_four(VecF a, VecF b, VecF c, VecF d) {
  const auto halves = [](VecF x, VecF y) {
    return VecF{_mm512_shuffle_f32x4(x.v, y.v, 0x44)} + VecF{_mm512_shuffle_f32x4(x.v, y.v, 0xee)};
  };
  const VecF ab = halves(a, b), cd = halves(c, d);
  VecF s = VecF{_mm512_shuffle_f32x4(ab.v, cd.v, 0x88)} +
           VecF{_mm512_shuffle_f32x4(ab.v, cd.v, 0xdd)};
  s = s + VecF{_mm512_permute_ps(s.v, 0x4e)};
  return s + VecF{_mm512_permute_ps(s.v, 0xb1)};
}
// Lane group r of `a` in all lanes.
static inline void spread(VecF a, VecF (&to)[kQuad]) {
  to[0] = {_mm512_shuffle_f32x4(a.v, a.v, 0x00)};
  to[1] = {_mm512_shuffle_f32x4(a.v, a.v, 0x55)};
  to[2] = {_mm512_shuffle_f32x4(a.v, a.v, 0xaa)};
  to[3] = {_mm512_shuffle_f32x4(a.v, a.v, 0xff)};
}

// Four rows in registers, each of N vectors whose lanes beyond the row are 0, normalised in place.
template <int N, bool kTail>
static inline void normalise_quad(VecF (&x)[kQuad][N], const float* weight, const float* bias,
                                  const RowShape& shape) {
  const VecF share = splat(1.0f / static_cast<float>(shape.channels));
  VecF centre[kQuad], part[kQuad];
#pragma GCC unroll 4
  for (int r = 0; r < kQuad; ++r) {
    part[r] = splat(0.0f);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) part[r] = part[r] + x[r][i];
  }
  spread(sums_of_four(part[0], part[1], part[2], part[3]) * share, centre);
#pragma GCC unroll 4
  for (int r = 0; r < kQuad; ++r) {
    part[r] = splat(0.0f);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      x[r][i] = x[r][i] - centre[r];
      if (kTail && i == N - 1) x[r][i] = x[r][i] * shape.mask;
      part[r] = fma(x[r][i], x[r][i], part[r]);
    }
  }
  const VecF variance = sums_of_four(part[0], part[1], part[2], part[3]) * share;
  VecF reciprocal[kQuad];
  spread(splat(1.0f) / sqrt(variance + splat(kEpsilon)), reciprocal);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    const VecF slope = load_vector<kTail>(weight, i, N, shape);
    const VecF offset = load_vector<kTail>(bias, i, N, shape);
#pragma GCC unroll 4
    for (int r = 0; r < kQuad; ++r) x[r][i] = fma(x[r][i] * reciprocal[r], slope, offset);
  }
}

template <int N, bool kTail>
static void normalise_quads(const LayerNorm& a, const RowShape& shape, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kQuad) {
    VecF x[kQuad][N];
#pragma GCC unroll 4
    for (int r = 0; r < kQuad; ++r) {
      const float* from = a.x.data + (row + r < end ? row + r : end - 1) * shape.channels;
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) x[r][i] = load_vector<kTail>(from, i, N, shape);
    }
    normalise_quad<N, kTail>(x, a.weight.data, a.bias.data, shape);
#pragma GCC unroll 4
    for (int r = 0; r < kQuad; ++r) {
      if (row + r >= end) break;
      float* to = a.y.data + (row + r) * shape.channels;
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) store_vector<kTail>(to, x[r][i], i, N, shape);
    }
  }
}
#endif

template <int kVectors>
static void normalise_vectors(const LayerNorm& a, const RowShape& shape, int64_t begin,
                              int64_t end) {
#if defined(__AVX512F__)
  if (kVectors >= 1 && kVectors <= 4) {
    constexpr int N = kVectors >= 1 && kVectors <= 4 ? kVectors : 1;
    if (shape.last == kLanes) return normalise_quads<N, false>(a, shape, begin, end);
    return normalise_quads<N, true>(a, shape, begin, end);
  }
#endif
  if (shape.last == kLanes) return normalise<kVectors, false>(a, shape, begin, end);
  normalise<kVectors, true>(a, shape, begin, end);
}
// y = normalised x, rows [begin, end) of both.
static void normalise_rows(const LayerNorm& a, const RowShape& shape, int64_t begin, int64_t end) {
  switch (shape.vectors) {  // the common sizes: 24, 48 and 60 channels
    case 2: return normalise_vectors<2>(a, shape, begin, end);
    case 3: return normalise_vectors<3>(a, shape, begin, end);
    case 4: return normalise_vectors<4>(a, shape, begin, end);
    case 6: return normalise_vectors<6>(a, shape, begin, end);
    default: return normalise_vectors<0>(a, shape, begin, end);
  }
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
