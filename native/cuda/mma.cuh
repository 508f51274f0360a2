// Products of codes on the tensor cores: D(16 x 8) += A(16 x K) B(K x 8) by one warp, sums exact in
// 32 bits. All widths share one picture of the operands, in 32-bit words of packed codes (8, 4 or
// 1 bit each, the first in the lowest bits). With g = lane / 4 and t = lane % 4:
//   A: a[0] = word t of row g, a[1] = word t of row g + 8, a[2], a[3] = word 4 + t of the two
//   B: b[0] = word t of column g, b[1] = word 4 + t
//   D: d[0], d[1] = row g, columns 2t and 2t + 1; d[2], d[3] = row g + 8
// so K is 32, 64 or 256 codes in 8 words; mma_half takes 4 words (16 codes of 8 bits).
// sm_80 to sm_89 multiply 4-bit codes natively, sm_90 and later would emulate them (two 8-bit
// products and a heap of shifts): there codes are unpacked to 8 bits while they are staged, and
// nothing of width 4 is launched. 1 bit (AND and popcount) is native on all.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kWordsOfK = 8;        // of an A or B row in one mma
constexpr int kFirst8BitOnly = 90;  // architecture from which 4-bit products are emulated

// True where the device multiplies operands of the width; else the kernel ends in a trap: launch code
// takes width 8 from kFirst8BitOnly on.
template <int kWidth>
SPR2Q_DEVICE bool has_width() {
#if defined(SPR2Q_CUDA_SHIM)
  if (kWidth == 4 && architecture() >= kFirst8BitOnly) shim::trap("width 4 where the device has 8");
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (kWidth == 4) {
    __trap();
    return false;
  }
#endif
  return true;
}

#if defined(SPR2Q_CUDA_SHIM)
// The same product from all lanes' fragments, by the picture above.
static inline void shim_mma(int (&d)[4], const unsigned* a, const unsigned* b, int bits,
                            int halves) {
  struct Fragments {
    unsigned a[4], b[2];
  } mine = {};
  for (int i = 0; i < 2 * halves; ++i) mine.a[i] = a[i];
  for (int i = 0; i < halves; ++i) mine.b[i] = b[i];
  const unsigned char* slots = shim::exchange(kAllLanes, &mine, sizeof mine, "mma");
  const int g = shim::lane() / 4, t = shim::lane() % 4;
  const unsigned mask = bits == 32 ? ~0u : (1u << bits) - 1;
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * t + i % 2;
    for (int k = 0; k < 4; ++k) {
      const Fragments row = shim::slot<Fragments>(slots, 4 * g + k);
      const Fragments other = shim::slot<Fragments>(slots, 4 * column + k);
      for (int half = 0; half < halves; ++half) {
        const unsigned x = row.a[2 * half + i / 2], y = other.b[half];
        for (int shift = 0; shift < 32; shift += bits) {
          d[i] += static_cast<int>((x >> shift & mask) * (y >> shift & mask));
        }
      }
    }
  }
}

template <int kWidth>
SPR2Q_DEVICE void mma(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  shim_mma(d, a, b, kWidth, 2);
}
SPR2Q_DEVICE void mma_half(int (&d)[4], const unsigned (&a)[2], unsigned b) {
  shim_mma(d, a, &b, 8, 1);
}
#else
template <int kWidth>
SPR2Q_DEVICE void mma(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  static_assert(kWidth == 8 || kWidth == 4 || kWidth == 1, "a width of the tensor cores");
  if constexpr (kWidth == 8) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (kWidth == 4) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    has_width<kWidth>();
#else
    asm volatile("mma.sync.aligned.m16n8k64.row.col.s32.u4.u4.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  } else {
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
SPR2Q_DEVICE void mma_half(int (&d)[4], const unsigned (&a)[2], unsigned b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.u8.u8.s32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif

// Sum of the codes of one word.
template <int kWidth>
SPR2Q_DEVICE int code_sum(unsigned word) {
  constexpr unsigned kOnes = 0x01010101u, kNibbles = 0x0f0f0f0fu;
  if (kWidth == 1) return __popc(word);
  if (kWidth == 8) return static_cast<int>(__dp4a(word, kOnes, 0u));
  return static_cast<int>(__dp4a(word & kNibbles, kOnes, __dp4a(word >> 4 & kNibbles, kOnes, 0u)));
}

// Four codes, one a byte, packed to kWidth bits each.
template <int kWidth>
SPR2Q_DEVICE unsigned squeeze(unsigned bytes) {
  if (kWidth == 8) return bytes;
  if (kWidth == 1) return (bytes * 0x01020408u) >> 24 & 15u;  // bit 24 + k gathers byte k alone
  const unsigned pairs = (bytes | bytes >> 4) & 0x00ff00ffu;
  return (pairs | pairs >> 8) & 0xffffu;
}

// Word `index` of a row of `count` codes that lie one a byte, packed to kWidth bits; zeros past the
// end. `wide`: the row starts on a 4-byte boundary and its bytes up to a multiple of 4 may be read.
template <int kWidth>
SPR2Q_DEVICE unsigned code_word(const uint8_t* row, int64_t index, int64_t count, bool wide) {
  constexpr int kCodes = 32 / kWidth;
  const int64_t first = index * kCodes;
  unsigned word = 0;
#pragma unroll
  for (int k = 0; k < kCodes; k += 4) {
    unsigned bytes = 0;
    if (wide) {
      if (first + k < count) bytes = *reinterpret_cast<const unsigned*>(row + first + k);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + k + i < count) bytes |= static_cast<unsigned>(row[first + k + i]) << 8 * i;
      }
    }
    word |= squeeze<kWidth>(bytes) << (k * kWidth);
  }
  return word;
}

}  // namespace cuda
}  // namespace spr2q
