// exp and log built of IEEE +, x, fma and bit operations only: no libm, so the same input gives the
// same bits on every instruction set (and in any other room that copies the operation order). They
// sit wherever a rounding or an argmax follows: the probability codes of the attention and the
// noise of the router. `static inline`, because this header is compiled once per instruction set.
#pragma once
#include <cstdint>
#include <cstring>

#include "shared.hpp"

namespace spr2q {

constexpr float kLog2E = 1.44269504f;
constexpr float kHalfLog2E = 0.72134752f;

// 1.5 * 2^23: adding it leaves round_half_even(x) in the low mantissa bits, for |x| < 2^22.
constexpr float kRoundingMagic = 12582912.0f;
// 2^r - 1 = r (c1 + r (c2 + ...)) on [-1/2, 1/2], relative error of 2^r below 9.2e-8 (least maximum
// with c0 = 1 held, so that exp2(0) is exactly 1 and the largest logit gets the largest code).
constexpr float kExp2C1 = 0.6931470036506653f;
constexpr float kExp2C2 = 0.24022242426872253f;
constexpr float kExp2C3 = 0.05550733581185341f;
constexpr float kExp2C4 = 0.009671512991189957f;
constexpr float kExp2C5 = 0.001326472731307149f;
// Below this 2^x counts as 2^-126, the smallest normal number.
constexpr float kExp2Floor = -126.0f;

SPR2Q_SHARED uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
SPR2Q_SHARED float bits_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^x for x <= 127, to about 1 ulp. NaN stays NaN.
SPR2Q_SHARED float exp2_shared(float x) {
  x = kExp2Floor > x ? kExp2Floor : x;
  const float t = x + kRoundingMagic;
  const float r = x - (t - kRoundingMagic);
  float p = __builtin_fmaf(kExp2C5, r, kExp2C4);
  p = __builtin_fmaf(p, r, kExp2C3);
  p = __builtin_fmaf(p, r, kExp2C2);
  p = __builtin_fmaf(p, r, kExp2C1);
  p = __builtin_fmaf(p, r, 1.0f);
  return bits_float(float_bits(p) + (float_bits(t) << 23));
}

// ---- Half-exponent codes of few bits ------------------------------------------------------------
// q = round(L 2^-x) with x = (largest - logit)/2 * log2 e. Up to kGridBits bits the exponent lies on a
// grid of kGridSteps to the octave, far finer than the codes are, so that serving looks q^2 up in
// kGridEntries bytes and computes no exponential. Logits come scaled by kGridFactor; kRoundingMagic +
// (largest - logit) ends in the index, 0 for the largest logit. NaN gets the last one, code 0.
constexpr int64_t kGridBits = 4;
constexpr int kGridEntries = 128;
constexpr float kGridSteps = 25.0f;  // the last index, 127, is 5.08 octaves down: code 0 at 4 bits
constexpr float kGridFactor = kHalfLog2E * kGridSteps;
constexpr float kGridEnd = kRoundingMagic + (kGridEntries - 1);

SPR2Q_SHARED float grid_index(float largest, float logit) {
  const float shifted = kRoundingMagic + (largest - logit);
  return (shifted < kGridEnd ? shifted : kGridEnd) - kRoundingMagic;
}
SPR2Q_SHARED float grid_exponent(float index) { return index * (-1.0f / kGridSteps); }

// log(x) for normal x > 0, relative error below 1.5e-7, log(1) = 0 exactly. x = 2^e m with m in
// [sqrt 1/2, sqrt 2), log m = f - f^2/2 + f^3 P(f) at f = m - 1, |P's error| f^3 < 6e-9 log m.
SPR2Q_SHARED float log_shared(float x) {
  constexpr uint32_t kSqrtHalfBits = 0x3f3504f3u;
  const uint32_t shifted = float_bits(x) - kSqrtHalfBits;
  const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float f = bits_float((shifted & 0x007fffffu) + kSqrtHalfBits) - 1.0f;
  const float square = f * f;
  float p = __builtin_fmaf(-0.07634500414133072f, f, 0.127615824341774f);
  p = __builtin_fmaf(p, f, -0.13160182535648346f);
  p = __builtin_fmaf(p, f, 0.14201757311820984f);
  p = __builtin_fmaf(p, f, -0.16623356938362122f);
  p = __builtin_fmaf(p, f, 0.20001226663589478f);
  p = __builtin_fmaf(p, f, -0.2500081956386566f);
  p = __builtin_fmaf(p, f, 0.3333333134651184f);
  // ln 2 in two parts: the first has so few bits that e times it is exact.
  p = __builtin_fmaf(p * f, square, e * -2.12194440e-4f);
  p = __builtin_fmaf(-0.5f, square, p);
  return __builtin_fmaf(e, 0.693359375f, f + p);
}

}  // namespace spr2q
