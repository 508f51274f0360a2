// One vector type per instruction set, so that each fast kernel is written once. VecF holds
// kLanes floats: 16 with AVX-512, 8 with AVX2, 4 with NEON and on the portable path (compiler
// vectors). max and min give their second operand where one is NaN, on every path.
// Contraction is off for the whole build: a fused multiply-add happens only where fma() is
// written, so results do not depend on the compiler's mood. No std templates with code in this
// folder: they would be compiled for an instruction set that the machine may lack and then be
// shared by the linker.
#pragma once
#include <cstdint>
#include <cstring>

#include "../core/ops.hpp"
#include "../core/pool.hpp"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(SPR2Q_NEON)  // not __ARM_NEON: the portable path of such a machine has that too
#include <arm_neon.h>
#endif

namespace spr2q {
namespace SPR2Q_ISA {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
struct VecF { __m512 v; };
static inline VecF load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, VecF a) { _mm512_storeu_ps(p, a.v); }
static inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
static inline VecF load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
static inline void store_first(float* p, VecF a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
static inline VecF splat(float x) { return {_mm512_set1_ps(x)}; }
static inline VecF operator+(VecF a, VecF b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline VecF operator-(VecF a, VecF b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline VecF operator*(VecF a, VecF b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline VecF operator/(VecF a, VecF b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline VecF max(VecF a, VecF b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline VecF min(VecF a, VecF b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline VecF sqrt(VecF a) { return {_mm512_sqrt_ps(a.v)}; }
static inline VecF round_even(VecF a) { return {_mm512_roundscale_ps(a.v, 8)}; }
// a <= b ? x : y, lane by lane.
static inline VecF where_le(VecF a, VecF b, VecF x, VecF y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ), y.v, x.v)};
}
// a * 2^e for integral e in [-126, 127].
static inline VecF scale_pow2(VecF a, VecF e) { return {_mm512_scalef_ps(a.v, e.v)}; }
static inline float sum(VecF a) { return _mm512_reduce_add_ps(a.v); }
static inline float largest(VecF a) { return _mm512_reduce_max_ps(a.v); }
// 16 codes <-> floats: 0 ... 255, rounded half to even.
static inline VecF load_codes(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
static inline void store_codes(uint8_t* p, VecF a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
static inline void store_codes_first(uint8_t* p, VecF a, int n) {
  _mm512_mask_cvtepi32_storeu_epi8(p, first_lanes(n), _mm512_cvtps_epi32(a.v));
}
// Codes of 1 bit: 1 where a >= least.
static inline void store_flags(uint8_t* p, VecF a, VecF least) {
  const __mmask16 flags = _mm512_cmp_ps_mask(a.v, least.v, _CMP_GE_OQ);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(flags, 1));
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
struct VecF { __m256 v; };
static inline VecF load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline void store(float* p, VecF a) { _mm256_storeu_ps(p, a.v); }
static inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline VecF load_first(const float* p, int n) { return {_mm256_maskload_ps(p, first_lanes(n))}; }
static inline void store_first(float* p, VecF a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a.v); }
static inline VecF splat(float x) { return {_mm256_set1_ps(x)}; }
static inline VecF operator+(VecF a, VecF b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline VecF operator-(VecF a, VecF b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline VecF operator*(VecF a, VecF b) { return {_mm256_mul_ps(a.v, b.v)}; }
static inline VecF operator/(VecF a, VecF b) { return {_mm256_div_ps(a.v, b.v)}; }
static inline VecF fma(VecF a, VecF b, VecF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
static inline VecF max(VecF a, VecF b) { return {_mm256_max_ps(a.v, b.v)}; }
static inline VecF min(VecF a, VecF b) { return {_mm256_min_ps(a.v, b.v)}; }
static inline VecF sqrt(VecF a) { return {_mm256_sqrt_ps(a.v)}; }
static inline VecF round_even(VecF a) { return {_mm256_round_ps(a.v, 8)}; }
static inline VecF where_le(VecF a, VecF b, VecF x, VecF y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ))};
}
static inline VecF scale_pow2(VecF a, VecF e) {
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(e.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(bits))};
}
static inline float sum(VecF a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline float largest(VecF a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline VecF load_codes(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
static inline void store_codes(uint8_t* p, VecF a) {
  const __m256i w = _mm256_cvtps_epi32(a.v);
  const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(h, h));
}

#elif defined(SPR2Q_NEON)

constexpr int kLanes = 4;
struct VecF { float32x4_t v; };
static inline VecF load(const float* p) { return {vld1q_f32(p)}; }
static inline void store(float* p, VecF a) { vst1q_f32(p, a.v); }
static inline VecF load_first(const float* p, int n) {
  float32x4_t a = vdupq_n_f32(0.0f);
  if (n > 0) a = vld1q_lane_f32(p, a, 0);
  if (n > 1) a = vld1q_lane_f32(p + 1, a, 1);
  if (n > 2) a = vld1q_lane_f32(p + 2, a, 2);
  if (n > 3) a = vld1q_lane_f32(p + 3, a, 3);
  return {a};
}
static inline void store_first(float* p, VecF a, int n) {
  if (n > 0) vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
  if (n > 3) vst1q_lane_f32(p + 3, a.v, 3);
}
static inline VecF splat(float x) { return {vdupq_n_f32(x)}; }
static inline VecF operator+(VecF a, VecF b) { return {vaddq_f32(a.v, b.v)}; }
static inline VecF operator-(VecF a, VecF b) { return {vsubq_f32(a.v, b.v)}; }
static inline VecF operator*(VecF a, VecF b) { return {vmulq_f32(a.v, b.v)}; }
static inline VecF operator/(VecF a, VecF b) { return {vdivq_f32(a.v, b.v)}; }
static inline VecF fma(VecF a, VecF b, VecF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// fmax and fmin would hand a NaN on, fmaxnm and fminnm drop it from either side: compare and select.
static inline VecF max(VecF a, VecF b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
static inline VecF min(VecF a, VecF b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
static inline VecF sqrt(VecF a) { return {vsqrtq_f32(a.v)}; }
static inline VecF round_even(VecF a) { return {vrndnq_f32(a.v)}; }
static inline VecF where_le(VecF a, VecF b, VecF x, VecF y) {
  return {vbslq_f32(vcleq_f32(a.v, b.v), x.v, y.v)};
}
static inline VecF scale_pow2(VecF a, VecF e) {
  const int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(e.v), vdupq_n_s32(127)), 23);
  return {vmulq_f32(a.v, vreinterpretq_f32_s32(bits))};
}
static inline float sum(VecF a) {  // (0 + 2) + (1 + 3), as the other paths
  return vaddv_f32(vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v)));
}
static inline float largest(VecF a) {
  const float32x2_t low = vget_low_f32(a.v), high = vget_high_f32(a.v);
  const float32x2_t m = vbsl_f32(vcgt_f32(low, high), low, high);
  const float even = vget_lane_f32(m, 0), odd = vget_lane_f32(m, 1);
  return even > odd ? even : odd;
}
static inline VecF load_codes(const uint8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)))};
}
static inline void store_codes(uint8_t* p, VecF a) {
  const uint16x4_t half = vmovn_u32(vcvtnq_u32_f32(a.v));
  const uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
  std::memcpy(p, &four, 4);
}

#else

constexpr int kLanes = 4;
typedef float Float4 __attribute__((vector_size(16)));
struct VecF { Float4 v; };
static inline VecF load(const float* p) { VecF a; std::memcpy(&a.v, p, 16); return a; }
static inline void store(float* p, VecF a) { std::memcpy(p, &a.v, 16); }
static inline VecF load_first(const float* p, int n) {
  VecF a = {Float4{0, 0, 0, 0}};
  for (int i = 0; i < n; ++i) a.v[i] = p[i];
  return a;
}
static inline void store_first(float* p, VecF a, int n) { for (int i = 0; i < n; ++i) p[i] = a.v[i]; }
static inline VecF splat(float x) { return {Float4{x, x, x, x}}; }
static inline VecF operator+(VecF a, VecF b) { return {a.v + b.v}; }
static inline VecF operator-(VecF a, VecF b) { return {a.v - b.v}; }
static inline VecF operator*(VecF a, VecF b) { return {a.v * b.v}; }
static inline VecF operator/(VecF a, VecF b) { return {a.v / b.v}; }
#define SPR2Q_LANES(expression)                              \
  VecF r;                                                    \
  for (int i = 0; i < kLanes; ++i) r.v[i] = (expression);    \
  return r
static inline VecF fma(VecF a, VecF b, VecF c) { SPR2Q_LANES(__builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
static inline VecF max(VecF a, VecF b) { SPR2Q_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline VecF min(VecF a, VecF b) { SPR2Q_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline VecF sqrt(VecF a) { SPR2Q_LANES(__builtin_sqrtf(a.v[i])); }
static inline VecF round_even(VecF a) { SPR2Q_LANES(__builtin_nearbyintf(a.v[i])); }
static inline VecF where_le(VecF a, VecF b, VecF x, VecF y) { SPR2Q_LANES(a.v[i] <= b.v[i] ? x.v[i] : y.v[i]); }
// As an integer, also where the vector sets give infinity or nothing; NaN is among those.
static inline int exponent_of(float e) {
  return static_cast<int>(e > -300.0f ? (e < 300.0f ? e : 300.0f) : -300.0f);
}
static inline VecF scale_pow2(VecF a, VecF e) { SPR2Q_LANES(__builtin_ldexpf(a.v[i], exponent_of(e.v[i]))); }
static inline float sum(VecF a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
static inline float largest(VecF a) {
  float m = a.v[0];
  for (int i = 1; i < kLanes; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
static inline VecF load_codes(const uint8_t* p) { SPR2Q_LANES(static_cast<float>(p[i])); }
static inline void store_codes(uint8_t* p, VecF a) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(__builtin_nearbyintf(a.v[i]));
}
#undef SPR2Q_LANES

#endif

#if !defined(__AVX512F__)
static inline void store_codes_first(uint8_t* p, VecF a, int n) {
  uint8_t whole[kLanes];
  store_codes(whole, a);
  std::memcpy(p, whole, static_cast<size_t>(n));
}
static inline void store_flags(uint8_t* p, VecF a, VecF least) {
  store_codes(p, where_le(least, a, splat(1.0f), splat(0.0f)));
}
#endif

// Typed vectors, not __m512i: the compiler keeps a second copy of every sum where the types of a
// loop's variable and of its use behind the loop differ.
typedef int32_t VecI __attribute__((vector_size(4 * kLanes)));
static inline VecI splat_int(int32_t x) { return VecI{} + x; }

// exp(x) to about 1 ulp: 2^n * p(r), r = x - n ln 2 in two parts, degree 6. Below -87 it gives
// exp(-87) ~ 1e-38, above 88 exp(88).
static inline VecF exp(VecF x) {
  x = min(max(x, splat(-87.0f)), splat(88.0f));
  const VecF n = round_even(x * splat(1.44269504f));
  VecF r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  VecF p = splat(1.3981999507e-3f);
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(0.5f));
  p = fma(p * r, r, r + splat(1.0f));
  return scale_pow2(p, n);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
