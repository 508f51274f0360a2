// The linear layer on 1-bit codes for NEON, as bit_linear.hpp has it for AVX-512. cnt counts the
// ones of bytes, so a byte is one output: plane b holds inputs 8 b ... 8 b + 7 of sixteen outputs,
// a product is an AND with that byte of the row, and no sum crosses lanes. Counts stay in bytes for
// 31 planes (248 inputs), then widen. The sums are the exact integers of every other path, and the
// epilogue is theirs: same bits. Packed: as in coded_linear.cpp, the panel being (planes, outputs
// padded to sixteen).
#pragma once
#include "panel.hpp"

#if defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kPlaneOutputs = 16;  // a vector of bytes
constexpr int kPlaneRows = 4;      // rows that share a plane's load: 16 counts with kPlaneVectors
constexpr int kPlaneVectors = 3;   // vectors of outputs side by side: 48
constexpr int64_t kCountPlanes = 31;  // 31 * 8 <= 255
constexpr int64_t kMostBitInputs = 65535;  // counts end in 16 bits

struct BitLinear {
  const uint8_t* panel;  // (planes, width)
  const float *product_scale, *total_scale, *constant;
  int64_t in, out, width, planes;
};

static inline int64_t plane_width(int64_t out) {
  return (out + kPlaneOutputs - 1) / kPlaneOutputs * kPlaneOutputs;
}

// weight: codes of `storage_bits`, each of the `out` rows starting on a byte.
static inline void pack_bits(const uint8_t* weight, int64_t storage_bits, int64_t in, int64_t out,
                             int64_t width, uint8_t* panel) {
  const int64_t row_bytes = (in * storage_bits + 7) / 8;
  std::memset(panel, 0, static_cast<size_t>((in + 7) / 8 * width));
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      const int64_t bit = i * storage_bits;
      const int code = weight[o * row_bytes + (bit >> 3)] >> (bit & 7) & 1;
      panel[i / 8 * width + o] = static_cast<uint8_t>(panel[i / 8 * width + o] | code << (i % 8));
    }
  }
}

// 64 codes, 0 or 1, to 64 bits: each is shifted to its place in its byte, and neighbours are added.
static inline uint8x8_t bits_of_64(const uint8_t* codes) {
  constexpr int8_t kPlaces[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
  const int8x16_t places = vld1q_s8(kPlaces);
  uint8x16_t part[4];
  for (int i = 0; i < 4; ++i) part[i] = vshlq_u8(vld1q_u8(codes + 16 * i), places);
  const uint8x16_t pairs =
      vpaddq_u8(vpaddq_u8(part[0], part[1]), vpaddq_u8(part[2], part[3]));
  return vget_low_u8(vpaddq_u8(pairs, pairs));
}

// A row of codes to ceil(in / 64) groups of 64 bits; returns how many are 1.
static inline int64_t pack_bit_row(const uint8_t* codes, int64_t in, uint8_t* bits) {
  int64_t total = 0;
  for (int64_t i = 0; i < in; i += 64, bits += 8) {
    uint8_t last[64] = {};
    const uint8_t* from = codes + i;
    if (in - i < 64) {
      std::memcpy(last, from, static_cast<size_t>(in - i));
      from = last;
    }
    const uint8x8_t word = bits_of_64(from);
    vst1_u8(bits, word);
    total += vaddv_u8(vcnt_u8(word));
  }
  return total;
}

// Outputs [column, column + 16 V) of kPlaneRows rows, of which `valid` are stored.
template <int V>
static inline void bit_tile(const BitLinear& p, const uint8_t* const* x, const float* totals,
                            int64_t valid, int64_t column, float* y) {
  uint16_t sums[kPlaneRows][kPlaneOutputs * V] = {};
  for (int64_t first = 0; first < p.planes; first += kCountPlanes) {
    const int64_t last = first + kCountPlanes < p.planes ? first + kCountPlanes : p.planes;
    uint8x16_t count[kPlaneRows][V] = {};
    for (int64_t b = first; b < last; ++b) {
      uint8x16_t weight[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) weight[v] = vld1q_u8(p.panel + b * p.width + column + 16 * v);
#pragma GCC unroll 4
      for (int r = 0; r < kPlaneRows; ++r) {
        const uint8x16_t byte = vdupq_n_u8(x[r][b]);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) {
          count[r][v] = vaddq_u8(count[r][v], vcntq_u8(vandq_u8(byte, weight[v])));
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kPlaneRows; ++r) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) {
        uint16_t* sum = sums[r] + kPlaneOutputs * v;
        vst1q_u16(sum, vaddw_u8(vld1q_u16(sum), vget_low_u8(count[r][v])));
        vst1q_u16(sum + 8, vaddw_high_u8(vld1q_u16(sum + 8), count[r][v]));
      }
    }
  }
  // The epilogue's vectors end at the padded outputs, four by four.
  for (int64_t at = column; at < column + 16 * V && at < p.out; at += kLanes) {
    const VecF product_scale = load(p.product_scale + at);
    const VecF total_scale = load(p.total_scale + at), constant = load(p.constant + at);
    for (int64_t r = 0; r < valid; ++r) {
      const uint16x4_t four = vld1_u16(sums[r] + (at - column));
      const VecF shift = fma(total_scale, splat(totals[r]), constant);
      const VecF value = fma(product_scale, VecF{vcvtq_f32_u32(vmovl_u16(four))}, shift);
      store_tile_row<1>(y + r * p.out + at, &value, p.out - at);
    }
  }
}

static inline void run_bits(const BitLinear& p, const uint8_t* x, float* y, int64_t begin,
                            int64_t end) {
  const int64_t pitch = (p.in + 63) / 64 * 8;
  uint8_t* bits = scratch<uint8_t>(2, kPlaneRows * pitch);
  for (int64_t row = begin; row < end; row += kPlaneRows) {
    const int64_t valid = end - row < kPlaneRows ? end - row : kPlaneRows;
    const uint8_t* rows[kPlaneRows];
    float totals[kPlaneRows] = {};
    for (int64_t r = 0; r < kPlaneRows; ++r) {
      rows[r] = bits + (r < valid ? r : valid - 1) * pitch;
      if (r >= valid) continue;
      const int64_t total = pack_bit_row(x + (row + r) * p.in, p.in, bits + r * pitch);
      totals[r] = static_cast<float>(total);
    }
    for (int64_t vector = 0, count = p.width / kPlaneOutputs; vector < count;) {
      const int64_t wide = block_vectors(count - vector, kPlaneVectors);
      const int64_t column = vector * kPlaneOutputs;
      float* to = y + row * p.out;
      if (wide == 1) bit_tile<1>(p, rows, totals, valid, column, to);
      else if (wide == 2) bit_tile<2>(p, rows, totals, valid, column, to);
      else bit_tile<3>(p, rows, totals, valid, column, to);
      vector += wide;
    }
  }
}

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // SPR2Q_NEON
