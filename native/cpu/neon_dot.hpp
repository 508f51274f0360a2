// Products of bytes for NEON. With the dot-product instructions (ARMv8.2) udot multiplies four by
// four unsigned bytes and adds the sum to a lane of 32 bits; without them two umlal keep the sixteen
// products apart in lanes of 16 bits, which into() adds four by four, before one of them can
// overflow. Both take the same operands and give the same integers.
#pragma once
#include "simd.hpp"

#if defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {

// Four bytes to be multiplied with those of each lane: udot names one lane, umlal wants them in all.
#if defined(__ARM_FEATURE_DOTPROD)
typedef uint8x8_t FourBytes;
#else
typedef uint8x16_t FourBytes;
#endif
static inline FourBytes four_bytes(const void* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
#if defined(__ARM_FEATURE_DOTPROD)
  return vcreate_u8(four);
#else
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
#endif
}

// Sums of products on their way into `sum`: from(sum), add() at most room() times, into(sum).
struct ByteSums {
#if defined(__ARM_FEATURE_DOTPROD)
  uint32x4_t sums;
  static inline ByteSums from(uint32x4_t sum) { return {sum}; }
  inline void add(uint8x16_t a, FourBytes b) { sums = vdotq_lane_u32(sums, a, b, 0); }
  inline uint32x4_t into(uint32x4_t) const { return sums; }
  static inline int64_t room(int64_t) { return int64_t{1} << 62; }
#else
  uint16x8_t low, high;
  static inline ByteSums from(uint32x4_t) { return {vdupq_n_u16(0), vdupq_n_u16(0)}; }
  inline void add(uint8x16_t a, FourBytes b) {
    low = vmlal_u8(low, vget_low_u8(a), vget_low_u8(b));
    high = vmlal_high_u8(high, a, b);
  }
  inline uint32x4_t into(uint32x4_t sum) const {
    return vaddq_u32(sum, vpaddq_u32(vpaddlq_u16(low), vpaddlq_u16(high)));
  }
  static inline int64_t room(int64_t top) { return 65535 / top; }  // products of at most `top`
#endif
};

// Sum of n codes.
static inline int32_t code_total(const uint8_t* codes, int64_t n) {
  uint32x4_t sums = vdupq_n_u32(0);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sums = vpadalq_u16(sums, vpaddlq_u8(vld1q_u8(codes + i)));
  uint32_t total = vaddvq_u32(sums);
  if (i + 8 <= n) {
    total += vaddlv_u8(vld1_u8(codes + i));
    i += 8;
  }
  for (; i < n; ++i) total += codes[i];
  return static_cast<int32_t>(total);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // SPR2Q_NEON
