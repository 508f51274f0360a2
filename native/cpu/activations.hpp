// Activations in vectors, for the ops of that name and for those that have them fused in.
//
// gelu: with t = |x|, x Phi(x) = max(x, 0) - t Phi(-t), and Phi(-t) = exp(-t^2/2) k P(k) with
// k = 1/(1 + p t), the form of Abramowitz and Stegun 7.1.26 with six coefficients, fitted for
// the least largest error: 9.3e-9 on Phi, below the rounding of float32. The tail of negative x
// keeps its relative precision, which 1 + erf would lose.
#pragma once
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr float kGeluP = 0.28f;  // scale of k = 1/(1 + p t)
constexpr float kGeluC[6] = {0.11652154f, 0.06749225f,  0.26892072f,
                             -0.23700577f, 0.38988113f, -0.10580988f};  // of k^1 ... k^6
// Where t stops: exp(-13^2/2) = 2e-37 is the last normal value, and t Phi(-t) is 0 beside it.
constexpr float kGeluEnd = 13.0f;
constexpr float kInverseSqrt2Pi = 0.398942280f;

// exp(-t^2/2) and Phi(-t) for t >= 0; NaN stays NaN.
static inline void normal_tail(VecF t, VecF& bell, VecF& tail) {
  t = min(splat(kGeluEnd), t);
  bell = exp(t * t * splat(-0.5f));
  const VecF k = splat(1.0f) / fma(t, splat(kGeluP), splat(1.0f));
  VecF p = splat(kGeluC[5]);
  for (int i = 4; i >= 0; --i) p = fma(p, k, splat(kGeluC[i]));
  tail = p * k * bell;
}

static inline VecF absolute_lanes(VecF x) { return max(splat(0.0f) - x, x); }

static inline VecF gelu_of(VecF v) {
  const VecF t = absolute_lanes(v);
  VecF bell, tail;
  normal_tail(t, bell, tail);
  return max(splat(0.0f), v) - min(splat(kGeluEnd), t) * tail;
}

// s = 1/(1 + exp(-x)) and 1 - s, which keeps its digits where s is near 1; exp clamps its
// argument, so NaN is put back.
static inline VecF sigmoid(VecF x, VecF& rest) {
  const VecF e = exp(splat(0.0f) - x);
  const VecF s = where_le(x, x, splat(1.0f) / (splat(1.0f) + e), x);
  rest = e * s;
  return s;
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q
