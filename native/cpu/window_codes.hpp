// Half-exponent attention in integers, for AVX-512 with VNNI and VBMI: vpdpbusd multiplies four
// unsigned by four signed bytes and adds into a lane, so a key of 12 codes takes three instructions,
// and four keys' weights q^2 (at most 225, from codes of up to 4 bits) meet their values in one; the
// weights come from a table over the grid of exponents (core/exponent.hpp), 64 in one instruction.
// Every sum is exact, and logits come from the float path's operations in its order: same bits.
// Operands: window_operands.hpp.
#pragma once
#include "window_operands.hpp"

#if defined(__AVX512VNNI__)

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kTileCodeBits = 7;  // k and v must fit a signed byte

inline bool has_byte_tables() {
  static const bool has = __builtin_cpu_supports("avx512vbmi");
  return has;
}

template <int D>
struct CodeTile : CodeOperands<D> {
  using Operands = CodeOperands<D>;
  using Operands::Operands, Operands::kWords, Operands::kDims;
  using Operands::keys, Operands::groups, Operands::padded;
  using Operands::q, Operands::k, Operands::v, Operands::key_sum;

  __m512i* weights_of(int64_t group) const {
    return reinterpret_cast<__m512i*>(this->W) + group;
  }

  // S = logits, by the float path's formula; returns the largest per query.
  template <bool kMasked>
  SPR2Q_PASS VecF logits(int64_t p, VecF scale, VecF key_scale, float* S, const Start& from) const {
    const Start start = from;
    __m512i query[kWords];
    for (int i = 0; i < kWords; ++i) query[i] = _mm512_loadu_si512(q + i * padded + p);
    VecF top = splat(-3.4e38f);
    for (int64_t j = 0; j < keys; ++j) {
      __m512i product = _mm512_setzero_si512();
      for (int i = 0; i < kWords; ++i) {
        const __m512i key = _mm512_set1_epi32(static_cast<int32_t>(k[j * kWords + i]));
        product = _mm512_dpbusd_epi32(product, query[i], key);
      }
      const VecF logit = fma(scale, VecF{_mm512_cvtepi32_ps(product)},
                             fma(key_scale, splat(key_sum[j]), start.template at<kMasked>(j, 0)));
      top = max(logit, top);  // NaN passes by, as in the reference
      store(S + j * kBlock, logit);
    }
    // Keys that fill the last group of four: far below, so that their codes are 0.
    for (int64_t j = keys; j < 4 * groups; ++j) store(S + j * kBlock, splat(-3.4e38f));
    return top;
  }

  // low_byte(S of a key) of four keys, side by side in each query's lane.
  template <class LowByte>
  __attribute__((always_inline)) static inline __m512i four_keys(const float* S,
                                                                 const LowByte& low_byte) {
    const __m512i byte = _mm512_set1_epi32(0xff), three = _mm512_set1_epi32(0xffffff);
    const __m512i two = _mm512_set1_epi32(0xffff);
    constexpr int kSelect = 0xca;  // mask ? second : third
    const __m512i c0 = low_byte(S), c1 = _mm512_slli_epi32(low_byte(S + kBlock), 8);
    const __m512i c2 = _mm512_slli_epi32(low_byte(S + 2 * kBlock), 16);
    const __m512i c3 = _mm512_slli_epi32(low_byte(S + 3 * kBlock), 24);
    const __m512i low = _mm512_ternarylogic_epi32(byte, c0, c1, kSelect);
    const __m512i high = _mm512_ternarylogic_epi32(three, c2, c3, kSelect);
    return _mm512_ternarylogic_epi32(two, low, high, kSelect);
  }

  // W and its sum per query: the squares come from the table.
  __attribute__((target("avx512vbmi"), noinline)) VecF look_up(const float* S, VecF top,
                                                               const SquareTable& table) const {
    const __m512i near = _mm512_load_si512(table.squares);
    const __m512i far = _mm512_load_si512(table.squares + 64), ones = _mm512_set1_epi8(1);
    __m512i total = _mm512_setzero_si512();
    for (int64_t g = 0; g < groups; ++g) {
      const __m512i indices = four_keys(S + 4 * g * kBlock, [=](const float* at) {
        const VecF shifted = splat(kRoundingMagic) + (top - load(at));
        return _mm512_castps_si512(min(shifted, splat(kGridEnd)).v);
      });
      const __m512i weights = _mm512_permutex2var_epi8(near, indices, far);
      total = _mm512_dpbusd_epi32(total, weights, ones);
      _mm512_storeu_si512(weights_of(g), weights);
    }
    return {_mm512_cvtepi32_ps(total)};
  }

  // out (D, kBlock) = step * (sum W v / total) + lower.
  SPR2Q_PASS void mix(VecF total, VecF step, VecF lower, float* out) const {
    constexpr int kChunk = kDims <= 12 ? kDims : 8;
    for (int first = 0; first < kDims; first += kChunk) {
      __m512i sum[kChunk];
      for (int d = 0; d < kChunk; ++d) sum[d] = _mm512_setzero_si512();
      for (int64_t g = 0; g < groups; ++g) {
        const __m512i weights = _mm512_loadu_si512(weights_of(g));
        for (int d = 0; d < kChunk; ++d) {
          const __m512i values = _mm512_set1_epi32(static_cast<int32_t>(v[g * kDims + first + d]));
          sum[d] = _mm512_dpbusd_epi32(sum[d], weights, values);
        }
      }
      for (int d = 0; d < kChunk && first + d < D; ++d) {
        const VecF mean = VecF{_mm512_cvtepi32_ps(sum[d])} / total;
        store(out + (first + d) * kBlock, fma(step, mean, lower));
      }
    }
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512VNNI__
