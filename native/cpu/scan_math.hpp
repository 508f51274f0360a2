// Vector functions that the selective scan and its gradient share, so that the gradient recomputes
// the very decays and step sizes of the forward pass. One vector = kLanes neighbouring channels.
#pragma once
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {

constexpr float kLog2e = 1.44269504088896f;  // folded into A once, so that decays are powers of 2

// The first `lanes` (1 ... kLanes) of a vector; the others read as 0 and are not written.
static inline VecF load_lanes(const float* p, int lanes) {
  return lanes == kLanes ? load(p) : load_first(p, lanes);
}
static inline void store_lanes(float* p, VecF a, int lanes) {
  if (lanes == kLanes) store(p, a);
  else store_first(p, a, lanes);
}

// 2^r - 1 for |r| <= 1/2, relative error 1e-7 (also near 0, where a decay is close to 1).
static inline VecF exp2_minus_1(VecF r) {
  VecF p = splat(1.326472731e-3f);
  p = fma(p, r, splat(9.671512991e-3f));
  p = fma(p, r, splat(5.550733581e-2f));
  p = fma(p, r, splat(2.402224243e-1f));
  p = fma(p, r, splat(6.931470037e-1f));
  return p * r;
}

// 2^t; below 2^-125 some number of that size or 0, above 2^127 that or infinity.
static inline VecF exp2(VecF t) {
#if defined(__AVX512F__)
  const VecF n = round_even(t), r = t - n;
#elif defined(__AVX2__) || defined(SPR2Q_NEON)
  // Adding 1.5 * 2^23 leaves round(t) in the low bits, ready to be shifted to the exponent.
  t = min(max(t, splat(-125.0f)), splat(127.0f));
  const VecF shifted = t + splat(12582912.0f), r = t - (shifted - splat(12582912.0f));
#else
  t = min(max(t, splat(-125.0f)), splat(127.0f));
  const VecF n = round_even(t), r = t - n;
#endif
  VecF p = splat(1.326472731e-3f);
  p = fma(p, r, splat(9.671512991e-3f));
  p = fma(p, r, splat(5.550733581e-2f));
  p = fma(p, r, splat(2.402224243e-1f));
  p = fma(p, r, splat(6.931470037e-1f));
  p = fma(p, r, splat(1.0f));
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), exponent))};
#elif defined(SPR2Q_NEON)
  const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted.v), 23);
  return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p.v), exponent))};
#else
  return scale_pow2(p, n);
#endif
}

constexpr int64_t kBlock = 16;  // steps whose softplus is taken ahead, off the recurrence's path

// Asks for a vector's delta and u, from channel c0 on, of the block of rows that begins at `first`: a
// line every few lines, on which the machine's own prefetching does not count. Inlined by force: GCC
// may take a function that does nothing else for one without effects, and drop the call.
template <class Scan>
static inline __attribute__((always_inline)) void fetch_block(const Scan& a, int64_t first,
                                                              int64_t end, int64_t c0) {
  const int64_t last = first + kBlock < end ? first + kBlock : end;
  for (int64_t ahead = first; ahead < last; ++ahead) {
    __builtin_prefetch(a.delta.data + ahead * a.channels + c0);
    __builtin_prefetch(a.u.data + ahead * a.channels + c0);
  }
}

// x[k] -> log(1 + exp x[k]) = max(x, 0) + log1p(exp -|x|), relative error 3e-7. Above 20 this is x
// itself in float32, so the reference's branch needs no counterpart. N chains run side by side:
// one alone is a hundred cycles of waiting.
template <int N>
static inline void softplus(VecF* x) {
  constexpr float kLog1p[] = {5.232696421e-3f,  -2.950525284e-2f, 7.822598517e-2f,
                              -1.366325021e-1f, 1.910600960e-1f,  -2.484298348e-1f,
                              3.331909776e-1f,  -4.999949336e-1f, 9.999999404e-1f};
  VecF z[N], p[N];
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) {
    z[k] = exp(min(x[k], splat(0.0f) - x[k]));
    p[k] = splat(kLog1p[0]);
  }
#pragma GCC unroll 9
  for (int i = 1; i < 9; ++i) {  // log1p(z) / z on [0, 1]
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) p[k] = fma(p[k], z[k], splat(kLog1p[i]));
  }
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) x[k] = fma(p[k], z[k], max(x[k], splat(0.0f)));
}

// Step sizes softplus(delta + bias) of `count` tokens, `pitch` floats apart, to out and its pitch.
static inline void step_sizes(const float* delta, VecF bias, int lanes, int64_t count,
                              int64_t pitch, float* out, int64_t out_pitch, int out_lanes) {
  constexpr int kSide = 4;  // chains side by side
  int64_t i = 0;
  for (; i + kSide <= count; i += kSide) {
    VecF x[kSide];
#pragma GCC unroll 4
    for (int k = 0; k < kSide; ++k) x[k] = load_lanes(delta + (i + k) * pitch, lanes) + bias;
    softplus<kSide>(x);
#pragma GCC unroll 4
    for (int k = 0; k < kSide; ++k) store_lanes(out + (i + k) * out_pitch, x[k], out_lanes);
  }
  for (; i < count; ++i) {
    VecF x = load_lanes(delta + i * pitch, lanes) + bias;
    softplus<1>(&x);
    store_lanes(out + i * out_pitch, x, out_lanes);
  }
}

// The derivative of softplus from its value: sigmoid(x) = 1 - exp(-softplus(x)), accurate for small
// values too.
static inline VecF softplus_slope(VecF value) {
  const VecF t = max(value * splat(-kLog2e), splat(-126.0f));
  const VecF n = round_even(t);
  const VecF scale = scale_pow2(splat(1.0f), n);
  return (splat(1.0f) - scale) - scale * exp2_minus_1(t - n);
}

// Eq. 1 for the copy of the state that meets C (kTensor bounds).
struct StateQuantiser {
  float lower, upper, levels, inverse, step;
  VecF offset(VecF h) const {
    return min(max((h - splat(lower)) * splat(inverse), splat(0.0f)), splat(levels));
  }
  VecF value(VecF code) const { return fma(splat(step), code, splat(lower)); }
};

static inline StateQuantiser state_quantiser(const F32& bounds, int64_t bits) {
  StateQuantiser q = {0.0f, 1.0f, 1.0f, 1.0f, 1.0f};
  if (!bounds) return q;
  q.lower = bounds.data[0];
  q.upper = bounds.data[1];
  q.levels = static_cast<float>((1 << bits) - 1);
  q.inverse = q.levels / (q.upper - q.lower);
  q.step = (q.upper - q.lower) / q.levels;
  return q;
}

// A(channels, states) -> columns[s] = factor * A[c0 ... c0+lanes-1, s], the missing lanes 0.
static inline void load_decays(const F32& A, int64_t c0, int lanes, int states, float factor,
                               VecF* columns) {
  for (int s = 0; s < states; ++s) {
    float lane[kLanes] = {};
    for (int i = 0; i < lanes; ++i) lane[i] = factor * A.data[(c0 + i) * states + s];
    columns[s] = load(lane);
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
