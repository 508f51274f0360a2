// Half-exponent attention in integers, for NEON: window_codes.hpp's passes with four vectors of four
// queries to a block. A product of four codes by four is one udot, or two umlal (neon_dot.hpp); the
// weights q^2 come from the table of 128 bytes in two tbl of 64. Every sum is exact, and logits come
// from the float path's operations in its order: same bits. Operands: window_operands.hpp, k being
// (keys, head_dim/4).
#pragma once
#include "neon_dot.hpp"
#include "window_operands.hpp"

#if defined(SPR2Q_NEON)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int64_t kTileCodeBits = 8;
constexpr int kMixSide = 4;  // vectors of queries that share a broadcast value in mix()
#else
constexpr int64_t kTileCodeBits = 4;  // lanes of 16 bits hold 16 products of q k, 19 of W v
constexpr int kMixSide = 2;           // a sum is two registers here
#endif
constexpr int64_t kMostWeight = 225;  // 15^2

inline bool has_byte_tables() { return true; }

// The bytes of four words, transposed: word d of the result has byte d of each.
static inline void put_across(uint32_t* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint32_t words[4] = {a, b, c, d};
  constexpr uint8_t kAcross[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const uint8x16_t rows = vreinterpretq_u8_u32(vld1q_u32(words));
  vst1q_u32(to, vreinterpretq_u32_u8(vqtbl1q_u8(rows, vld1q_u8(kAcross))));
}

// A value for each query of a block.
struct PerQuery {
  VecF v[kVectors];
};

template <int D>
struct CodeTile : CodeOperands<D> {
  using Operands = CodeOperands<D>;
  using Operands::Operands, Operands::kWords, Operands::kDims;
  using Operands::keys, Operands::groups, Operands::padded;
  using Operands::W, Operands::q, Operands::k, Operands::v, Operands::key_sum;

  // Codes 4 i ... 4 i + 3 of a row, zeros behind head_dim; kFull: head_dim is D.
  template <bool kFull>
  static uint32_t word(const uint8_t* row, int i, int64_t head_dim) {
    const int64_t width = (kFull ? D : head_dim) - 4 * i;
    uint32_t bytes = 0;
    if (width >= 4) {
      std::memcpy(&bytes, row + 4 * i, 4);
    } else if (width == 2) {
      std::memcpy(&bytes, row + 4 * i, 2);
    } else {
      for (int64_t d = 0; d < width; ++d) bytes |= uint32_t{row[4 * i + d]} << (8 * d);
    }
    return bytes;
  }

  template <bool kFull>
  SPR2Q_PASS void pack(const CodedWindowAttention& a, const int64_t* at, int64_t column) {
    const int64_t head_dim = a.head_dim;
    for (int64_t j = 0; j < padded; ++j) {
      const uint8_t* row = a.q.data + column + at[j < keys ? j : 0];
      for (int i = 0; i < kWords; ++i) q[i * padded + j] = word<kFull>(row, i, head_dim);
    }
    for (int64_t j = 0; j < keys; ++j) {
      const uint8_t* row = a.k.data + column + at[j];
      uint32_t pairs = 0;  // two sums of 16 bits
      for (int i = 0; i < kWords; ++i) {
        const uint32_t bytes = word<kFull>(row, i, head_dim);
        k[j * kWords + i] = bytes;
        pairs += (bytes & 0x00ff00ffu) + ((bytes >> 8) & 0x00ff00ffu);
      }
      key_sum[j] = static_cast<float>((pairs & 0xffffu) + (pairs >> 16));
    }
    for (int64_t g = 0; g < groups; ++g) {
      const uint8_t* row[4];
      for (int64_t r = 0; r < 4; ++r) {
        row[r] = a.v.data + column + at[4 * g + r < keys ? 4 * g + r : 0];
      }
      for (int i = 0; i < kWords; ++i) {
        // A row past the last key repeats the first: its weight is 0.
        put_across(v + g * kDims + 4 * i, word<kFull>(row[0], i, head_dim),
                   word<kFull>(row[1], i, head_dim), word<kFull>(row[2], i, head_dim),
                   word<kFull>(row[3], i, head_dim));
      }
    }
  }

  // S = logits, by the float path's formula; returns the largest per query.
  template <bool kMasked>
  SPR2Q_PASS PerQuery logits(int64_t p, VecF scale, VecF key_scale, float* S,
                             const Start& from) const {
    const Start start = from;  // by value, as what follows: the stores to S could change the originals
    const uint32_t* packed = k;
    const float* sums = key_sum;
    const int64_t count = keys;
    uint8x16_t query[kWords][kVectors];
    for (int i = 0; i < kWords; ++i) {
      for (int n = 0; n < kVectors; ++n) {
        query[i][n] = vreinterpretq_u8_u32(vld1q_u32(q + i * padded + p + n * kLanes));
      }
    }
    PerQuery top;
    for (int n = 0; n < kVectors; ++n) top.v[n] = splat(-3.4e38f);
    for (int64_t j = 0; j < count; ++j) {
      FourBytes key[kWords];
      for (int i = 0; i < kWords; ++i) key[i] = four_bytes(packed + j * kWords + i);
      VecF logit[kVectors];
      for (int n = 0; n < kVectors; ++n) {
        ByteSums product = ByteSums::from(vdupq_n_u32(0));
        for (int i = 0; i < kWords; ++i) product.add(query[i][n], key[i]);
        const VecF rest = fma(key_scale, splat(sums[j]), start.template at<kMasked>(j, n));
        logit[n] = fma(scale, VecF{vcvtq_f32_u32(product.into(vdupq_n_u32(0)))}, rest);
        // maxnm: NaN passes by, as in the reference.
        top.v[n].v = vmaxnmq_f32(logit[n].v, top.v[n].v);
      }
      for (int n = 0; n < kVectors; ++n) store(S + j * kBlock + n * kLanes, logit[n]);
    }
    // Keys that fill the last group of four: far below, so that their codes are 0.
    for (int64_t j = keys; j < 4 * groups; ++j) {
      for (int n = 0; n < kVectors; ++n) store(S + j * kBlock + n * kLanes, splat(-3.4e38f));
    }
    return top;
  }

  // Bits of kRoundingMagic + the place of a key's logit on the grid: the index is the low byte.
  static inline uint32x4_t grid_bits(const float* logit, VecF top) {
    const VecF shifted = splat(kRoundingMagic) + (top - load(logit));
    // minnm: NaN gets the last index.
    return vreinterpretq_u32_f32(vminnmq_f32(shifted.v, vdupq_n_f32(kGridEnd)));
  }

  // W and its sum per query: the squares come from the table.
  SPR2Q_PASS PerQuery look_up(const float* S, const PerQuery& largest,
                              const SquareTable& table) const {
    const uint8x16x4_t near = vld1q_u8_x4(table.squares), far = vld1q_u8_x4(table.squares + 64);
    PerQuery sums;
    for (int n = 0; n < kVectors; ++n) {
      const VecF top = largest.v[n];
      uint32x4_t total = vdupq_n_u32(0);
      for (int64_t g = 0; g < groups; ++g) {
        const float* at = S + 4 * g * kBlock + n * kLanes;
        // sli keeps the bytes below the shift: four keys side by side in each query's lane.
        uint32x4_t four = grid_bits(at, top);
        four = vsliq_n_u32(four, grid_bits(at + kBlock, top), 8);
        four = vsliq_n_u32(four, grid_bits(at + 2 * kBlock, top), 16);
        four = vsliq_n_u32(four, grid_bits(at + 3 * kBlock, top), 24);
        const uint8x16_t index = vreinterpretq_u8_u32(four);
        // An index outside its 64 bytes gives 0 from tbl and leaves tbx's first operand alone.
        uint8x16_t weights = vqtbl4q_u8(near, index);
        weights = vqtbx4q_u8(weights, far, vsubq_u8(index, vdupq_n_u8(64)));
        total = vpadalq_u16(total, vpaddlq_u8(weights));
        vst1q_u8(reinterpret_cast<uint8_t*>(W + g * kBlock + n * kLanes), weights);
      }
      sums.v[n] = {vcvtq_f32_u32(total)};
    }
    return sums;
  }

  // out (D, kBlock) = step * (sum W v / total) + lower.
  SPR2Q_PASS void mix(const PerQuery& total, VecF step, VecF lower, float* out) const {
    constexpr int kChunk = kDims % 6 == 0 ? 6 : 4;
    const int64_t room = ByteSums::room(kMostWeight * ((1 << kTileCodeBits) - 1));
    for (int n = 0; n < kVectors; n += kMixSide) {
      for (int first = 0; first < kDims; first += kChunk) {
        uint32x4_t sum[kChunk][kMixSide] = {};
        for (int64_t from = 0; from < groups; from += room) {
          const int64_t count = groups - from < room ? groups - from : room;
          ByteSums part[kChunk][kMixSide];
          for (int d = 0; d < kChunk; ++d) {
            for (int m = 0; m < kMixSide; ++m) part[d][m] = ByteSums::from(sum[d][m]);
          }
          for (int64_t g = from; g < from + count; ++g) {
            uint8x16_t weights[kMixSide];
            for (int m = 0; m < kMixSide; ++m) {
              weights[m] = vreinterpretq_u8_u32(vld1q_u32(W + g * kBlock + (n + m) * kLanes));
            }
            for (int d = 0; d < kChunk; ++d) {
              const FourBytes values = four_bytes(v + g * kDims + first + d);
              for (int m = 0; m < kMixSide; ++m) part[d][m].add(weights[m], values);
            }
          }
          for (int d = 0; d < kChunk; ++d) {
            for (int m = 0; m < kMixSide; ++m) sum[d][m] = part[d][m].into(sum[d][m]);
          }
        }
        for (int d = 0; d < kChunk && first + d < D; ++d) {
          for (int m = 0; m < kMixSide; ++m) {
            const VecF mean = VecF{vcvtq_f32_u32(sum[d][m])} / total.v[n + m];
            store(out + (first + d) * kBlock + (n + m) * kLanes, fma(step, mean, lower));
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // SPR2Q_NEON
