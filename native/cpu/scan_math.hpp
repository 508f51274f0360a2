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

// 2^t; 0 or 2^-126 far below, 2^127 or infinity far above.
static inline VecF exp2(VecF t) {
#if !defined(__AVX512F__)
  t = min(max(t, splat(-126.0f)), splat(127.0f));
#endif
  const VecF n = round_even(t), r = t - n;
  VecF p = splat(1.326472731e-3f);
  p = fma(p, r, splat(9.671512991e-3f));
  p = fma(p, r, splat(5.550733581e-2f));
  p = fma(p, r, splat(2.402224243e-1f));
  p = fma(p, r, splat(6.931470037e-1f));
  return scale_pow2(fma(p, r, splat(1.0f)), n);
}

// log(1 + exp x) = max(x, 0) + log1p(exp -|x|), relative error 3e-7. Above 20 this is x itself in
// float32, so the reference's branch needs no counterpart.
static inline VecF softplus(VecF x) {
  const VecF z = exp(min(x, splat(0.0f) - x));
  VecF p = splat(5.232696421e-3f);  // log1p(z) / z on [0, 1]
  p = fma(p, z, splat(-2.950525284e-2f));
  p = fma(p, z, splat(7.822598517e-2f));
  p = fma(p, z, splat(-1.366325021e-1f));
  p = fma(p, z, splat(1.910600960e-1f));
  p = fma(p, z, splat(-2.484298348e-1f));
  p = fma(p, z, splat(3.331909776e-1f));
  p = fma(p, z, splat(-4.999949336e-1f));
  p = fma(p, z, splat(9.999999404e-1f));
  return fma(p, z, max(x, splat(0.0f)));
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
