// One step of coded_linear.cpp on NEON: four codes of a row, in all lanes, by four codes for each of
// four outputs. Unsigned by unsigned, so that 8-bit weights need no offset.
#pragma once
#include "neon_dot.hpp"

#if defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

struct NeonBytes {
  typedef uint8_t Weight;
  typedef uint8_t Input;
  static constexpr int kCodes = 4;
  // `room`: steps after which the sums of bytes go to those of 32 bits.
  template <int R, int V, class VecI>
  static inline void accumulate(VecI (&sum)[R][V], const uint8_t* const* rows, const uint8_t* panel,
                                int64_t stride, int64_t steps, int64_t room) {
    for (int64_t first = 0; first < steps; first += room) {
      const int64_t count = steps - first < room ? steps - first : room;
      ByteSums part[R][V];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) part[r][v] = ByteSums::from((uint32x4_t)sum[r][v]);
      }
      for (int64_t k = first; k < first + count; ++k, panel += stride) {
        uint8x16_t weight[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) weight[v] = vld1q_u8(panel + v * 16);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const FourBytes x = four_bytes(rows[r] + 4 * k);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) part[r][v].add(weight[v], x);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = (VecI)part[r][v].into((uint32x4_t)sum[r][v]);
      }
    }
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // SPR2Q_NEON
