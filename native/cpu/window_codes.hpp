// Half-exponent attention in integers, for AVX-512 with VNNI and VBMI: vpdpbusd multiplies four
// unsigned by four signed bytes and adds into a lane, so a key of 12 codes takes three instructions,
// and four keys' weights q^2 (at most 225, from codes of up to 4 bits) meet their values in one; the
// weights come from a table over the grid of exponents (core/exponent.hpp), 64 in one instruction.
// Every sum is exact, and logits come from the float path's operations in its order: same bits.
// Operands: window_operands.hpp, k being (keys/4, head_dim/4, 4): four keys side by side.
#pragma once
#include "levels.hpp"
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

  static constexpr int round_up_words() { return (kWords + 3) / 4 * 4; }
  __m512i* weights_of(int64_t group) const {
    return reinterpret_cast<__m512i*>(this->W) + group;
  }

  // words[i] = codes 4 i ... 4 i + 3 of four rows side by side, zeros behind head_dim. Rows past the
  // last repeat the first. kWhole: head_dim is D, no row is past the last, and the bytes behind a
  // head may be read: a load of 16 costs a fraction of one with a mask.
  template <bool kWhole>
  static inline void four_rows(const uint8_t* codes, const int64_t* at, int64_t j, int64_t rows,
                               int64_t head_dim, __m128i (&words)[round_up_words()]) {
    for (int i = 0; i < kWords; i += 4) {
      const int64_t left = (kWhole ? D : head_dim) - 4 * i;
      const int all = left >= 16 ? 0xffff : left > 0 ? (1 << left) - 1 : 0;
      const __mmask16 here = static_cast<__mmask16>(all);
      __m128i row[4];
      for (int r = 0; r < 4; ++r) {
        const uint8_t* from = codes + at[kWhole || j + r < rows ? j + r : 0] + 4 * i;
        row[r] = kWhole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                        : _mm_maskz_loadu_epi8(here, from);
        if (kWhole && D % 4) row[r] = _mm_maskz_mov_epi8(here, row[r]);
      }
      const __m128i a = _mm_unpacklo_epi32(row[0], row[1]), b = _mm_unpacklo_epi32(row[2], row[3]);
      const __m128i c = _mm_unpackhi_epi32(row[0], row[1]), d = _mm_unpackhi_epi32(row[2], row[3]);
      words[i] = _mm_unpacklo_epi64(a, b);
      words[i + 1] = _mm_unpackhi_epi64(a, b);
      words[i + 2] = _mm_unpacklo_epi64(c, d);
      words[i + 3] = _mm_unpackhi_epi64(c, d);
    }
  }

  // True where four_rows<true> may read the window at `at`: its heads' last bytes are not those of
  // the tensors.
  bool whole(const CodedWindowAttention& a, const int64_t* at) const {
    const int64_t row = a.heads * a.head_dim, last = a.batch * a.height * a.width - 1;
    bool inside = a.head_dim == D && D <= 16 && keys == padded && row >= 16;
    for (int64_t p = 0; p < keys; ++p) inside &= at[p] < last * row;
    return inside;
  }
  template <bool kWhole>
  SPR2Q_PASS void pack(const CodedWindowAttention& a, const int64_t* at, int64_t column) {
    __m128i words[round_up_words()];
    const auto to = [](uint32_t* p) { return reinterpret_cast<__m128i*>(p); };
    for (int64_t j = 0; j < padded; j += 4) {
      four_rows<kWhole>(a.q.data + column, at, j, keys, a.head_dim, words);
      for (int i = 0; i < kWords; ++i) _mm_storeu_si128(to(q + i * padded + j), words[i]);
    }
    const __m128i ones = _mm_set1_epi8(1);
    const __m128i across =
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int64_t g = 0; g < groups; ++g) {
      four_rows<kWhole>(a.k.data + column, at, 4 * g, keys, a.head_dim, words);
      __m128i sums = _mm_setzero_si128();
      for (int i = 0; i < kWords; ++i) {
        _mm_storeu_si128(to(k + (g * kWords + i) * 4), words[i]);
        sums = _mm_dpbusd_epi32(sums, words[i], ones);
      }
      _mm_storeu_ps(key_sum + 4 * g, _mm_cvtepi32_ps(sums));
      // Keys past the last repeat the first here: their weight is 0.
      four_rows<kWhole>(a.v.data + column, at, 4 * g, keys, a.head_dim, words);
      for (int i = 0; i < kWords; ++i) {
        _mm_storeu_si128(to(v + g * kDims + 4 * i), _mm_shuffle_epi8(words[i], across));
      }
    }
  }

  // S[b] = logits of N blocks from query p on, by the float path's formula; top[b]: the largest per
  // query. Two blocks share what is loaded for each key: loads are what one block waits for.
  template <int N, bool kMasked>
  SPR2Q_PASS void logits(int64_t p, VecF scale, VecF key_scale, float* const (&S)[N],
                         const Start (&from)[N], VecF (&top)[N]) const {
    // Copies of what is read, so that the stores of logits cannot change it under way.
    VecI query[N][kWords];
    VecF largest[N];
    const float *bias[N], *mask[N];
    float* to[N];
#pragma GCC unroll 2
    for (int b = 0; b < N; ++b) {
#pragma GCC unroll 4
      for (int i = 0; i < kWords; ++i) {
        query[b][i] = (VecI)_mm512_loadu_si512(q + i * padded + p + b * kBlock);
      }
      largest[b] = splat(-3.4e38f);
      bias[b] = from[b].bias[0];
      mask[b] = from[b].mask;
      to[b] = S[b];
    }
    const int32_t* offset = from[0].offset;
    const uint8_t* label = from[0].label;
    const float* sums = key_sum;
    const int64_t mask_row = padded;
    const auto one_key = [&](int64_t j, const uint32_t* at) __attribute__((always_inline)) {
      VecI product[N];
#pragma GCC unroll 2
      for (int b = 0; b < N; ++b) product[b] = splat_int(0);
#pragma GCC unroll 4
      for (int i = 0; i < kWords; ++i) {
        const __m512i key = _mm512_set1_epi32(static_cast<int32_t>(at[4 * i]));
#pragma GCC unroll 2
        for (int b = 0; b < N; ++b) {
          product[b] =
              (VecI)_mm512_dpbusd_epi32((__m512i)product[b], (__m512i)query[b][i], key);
        }
      }
      const VecF sum = splat(sums[j]);
      const int64_t place = offset[j], row = kMasked ? label[j] * mask_row : 0;
#pragma GCC unroll 2
      for (int b = 0; b < N; ++b) {
        VecF start = load(bias[b] + place);
        if (kMasked) start = start + load(mask[b] + row);
        const VecF logit = fma(scale, VecF{_mm512_cvtepi32_ps((__m512i)product[b])},
                               fma(key_scale, sum, start));
        largest[b] = max(logit, largest[b]);  // NaN passes by, as in the reference
        store(to[b] + j * kBlock, logit);
      }
    };
    const uint32_t* at = k;
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4, at += 4 * kWords) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) one_key(j + r, at + r);
    }
    for (int64_t r = 0; j < keys; ++j, ++r) one_key(j, at + r);
    // Keys that fill the last group of four: far below, so that their codes are 0.
    for (int b = 0; b < N; ++b) {
      for (int64_t j = keys; j < 4 * groups; ++j) store(S[b] + j * kBlock, splat(-3.4e38f));
      top[b] = largest[b];
    }
  }

  // low_byte(S of a key) of four keys, side by side in each query's lane.
  template <class LowByte>
  __attribute__((always_inline)) static inline __m512i four_keys(const float* S,
                                                                 const LowByte& low_byte) {
    const __m512i byte = _mm512_set1_epi32(0xff), three = _mm512_set1_epi32(0xffffff);
    const __m512i two = _mm512_set1_epi32(0xffff);
    constexpr int kSelect = 0xe2;  // second ? first : third, over the first
    const __m512i c0 = low_byte(S), c1 = _mm512_slli_epi32(low_byte(S + kBlock), 8);
    const __m512i c2 = _mm512_slli_epi32(low_byte(S + 2 * kBlock), 16);
    const __m512i c3 = _mm512_slli_epi32(low_byte(S + 3 * kBlock), 24);
    const __m512i low = _mm512_ternarylogic_epi32(c0, byte, c1, kSelect);
    const __m512i high = _mm512_ternarylogic_epi32(c2, three, c3, kSelect);
    return _mm512_ternarylogic_epi32(low, two, high, kSelect);
  }

  // W and its sum per query: the squares come from the table.
  __attribute__((target("avx512vbmi"), noinline)) VecF look_up(const float* S, VecF top,
                                                               const SquareTable& table) const {
    const __m512i near = _mm512_load_si512(table.squares);
    const __m512i far = _mm512_load_si512(table.squares + 64), ones = _mm512_set1_epi8(1);
    VecI total = splat_int(0);
    __m512i* to = weights_of(0);
    for (int64_t g = 0; g < groups; ++g) {
      const __m512i indices = four_keys(S + 4 * g * kBlock, [=](const float* at) {
        const VecF shifted = splat(kRoundingMagic) + (top - load(at));
        return _mm512_castps_si512(min(shifted, splat(kGridEnd)).v);
      });
      const __m512i weights = _mm512_permutex2var_epi8(near, indices, far);
      total = (VecI)_mm512_dpbusd_epi32((__m512i)total, weights, ones);
      _mm512_storeu_si512(to + g, weights);
    }
    return {_mm512_cvtepi32_ps((__m512i)total)};
  }

  // out (D, kBlock) = step * (sum W v / total) + lower.
  SPR2Q_PASS void mix(VecF total, VecF step, VecF lower, float* out) const {
    const VecF inverse = splat(1.0f) / total;
    constexpr int kChunk = kDims <= 12 ? kDims : 8;
    for (int first = 0; first < kDims; first += kChunk) {
      VecI sum[kChunk];
#pragma GCC unroll 12
      for (int d = 0; d < kChunk; ++d) sum[d] = splat_int(0);
      const uint32_t* value = v + first;
      const __m512i* weight = weights_of(0);
      for (int64_t g = 0; g < groups; ++g, value += kDims) {
        const __m512i weights = _mm512_loadu_si512(weight + g);
#pragma GCC unroll 12
        for (int d = 0; d < kChunk; ++d) {
          const __m512i values = _mm512_set1_epi32(static_cast<int32_t>(value[d]));
          sum[d] = (VecI)_mm512_dpbusd_epi32((__m512i)sum[d], weights, values);
        }
      }
      for (int d = 0; d < kChunk && first + d < D; ++d) {
        const VecF mean = quotient(VecF{_mm512_cvtepi32_ps((__m512i)sum[d])}, total, inverse);
        store(out + (first + d) * kBlock, fma(step, mean, lower));
      }
    }
  }

  // a / b, rounded as division rounds, for whole a < 2^24 and b < 2^22 and inverse = 1 / b. The
  // quotient differs from every midpoint of two floats by more than 2^-25 / b of itself (it is none:
  // a would be a multiple of an odd number above 2^24), and what the last step rounds differs from
  // the quotient by less than 2^-46.9 of it; the remainder is a whole number of units, exact.
  static inline VecF quotient(VecF a, VecF b, VecF inverse) {
    const VecF q = a * inverse;
    return fma(VecF{_mm512_fnmadd_ps(q.v, b.v, a.v)}, inverse, q);
  }

  // The codes of 16 queries' results, out(D, kBlock), into their rows: query i's begin at
  // to + at[i]. lower(d): the offset of dimension d.
  template <class Lower>
  static inline void put_codes(const float* out, const int64_t* at, const Levels& levels,
                               bool binary, const Lower& lower, uint8_t* to) {
    static_assert(D >= 8 && D <= 16, "eight bytes and a rest");
    __m512i words[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      words[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) {
        const int d = 4 * i + b;
        if (d >= D) continue;
        const VecF codes = codes_of(load(out + d * kBlock), lower(d), levels, binary);
        words[i] = _mm512_or_si512(words[i],
                                   _mm512_slli_epi32(_mm512_cvtps_epi32(codes.v), 8 * b));
      }
    }
    const __m512i a = _mm512_unpacklo_epi32(words[0], words[1]);
    const __m512i b = _mm512_unpackhi_epi32(words[0], words[1]);
    const __m512i c = _mm512_unpacklo_epi32(words[2], words[3]);
    const __m512i d = _mm512_unpackhi_epi32(words[2], words[3]);
    const __m512i fours[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                              _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)};
    const auto put = [](__m128i row, uint8_t* p) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(p), row);
      const uint64_t rest = static_cast<uint64_t>(_mm_extract_epi64(row, 1));
      std::memcpy(p + 8, &rest, D - 8);
    };
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      put(_mm512_castsi512_si128(fours[r]), to + at[r]);
      put(_mm512_extracti32x4_epi32(fours[r], 1), to + at[4 + r]);
      put(_mm512_extracti32x4_epi32(fours[r], 2), to + at[8 + r]);
      put(_mm512_extracti32x4_epi32(fours[r], 3), to + at[12 + r]);
    }
  }
};

}  // namespace
}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512VNNI__
