// Routing, fast: one task per run of tokens. Philox runs sixteen blocks at a time in 64-bit lanes.
// The choice needs few logarithms: a rough noise, right to kRoughError, leaves the classes that can
// still win, nearly always one; among several the exact noise of core/philox.hpp decides, so that
// the choice is the reference's on every backend. Sorting counts and places by fixed runs of
// tokens, so it is parallel within a sample too; gradients of the pool are kept per run and added
// in order.
#include "../core/philox.hpp"
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kTokensPerChunk = 256;   // tokens a task routes: about 40 microseconds with noise
constexpr int64_t kTokensPerRun = 4096;    // tokens a task counts and places when sorting
constexpr int64_t kPoolPartials = 8;       // pool gradients kept apart, then added in order

inline int64_t clamp_class(int32_t label, int64_t count) {
  return label < 0 ? 0 : label >= count ? count - 1 : label;
}
inline int64_t chunks_of(int64_t n, int64_t chunk) { return (n + chunk - 1) / chunk; }

#if defined(__AVX512F__)
typedef __m512i Wide;  // 64-bit lanes whose low halves count
constexpr int kWideLanes = 8;
inline Wide splat_wide(uint32_t x) { return _mm512_set1_epi64(x); }
inline Wide product(Wide a, Wide b) { return _mm512_mul_epu32(a, b); }
inline Wide high(Wide a) { return _mm512_srli_epi64(a, 32); }
inline Wide xor3(Wide a, Wide b, Wide c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline void store_low(uint32_t* to, Wide a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi64_epi32(a));
}
inline Wide counted(uint32_t x) {
  return _mm512_add_epi64(splat_wide(x), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}
#elif defined(__AVX2__)
typedef __m256i Wide;
constexpr int kWideLanes = 4;
inline Wide splat_wide(uint32_t x) { return _mm256_set1_epi64x(x); }
inline Wide product(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
inline Wide high(Wide a) { return _mm256_srli_epi64(a, 32); }
inline Wide xor3(Wide a, Wide b, Wide c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
inline void store_low(uint32_t* to, Wide a) {
  const __m256i even = _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(even));
}
inline Wide counted(uint32_t x) {
  return _mm256_add_epi64(splat_wide(x), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// philox_words of core/philox.hpp. In 64-bit lanes a product needs no unpacking: its high half is
// one shift away, and what stays above a low half is never looked at.
inline void fast_words(const NoiseKey& key, uint32_t token, uint32_t first_block,
                       uint32_t words[kNoiseGroup]) {
#if defined(__AVX2__) || defined(__AVX512F__)
  constexpr int kParts = kPhiloxLanes / kWideLanes;
  const uint64_t tile = static_cast<uint64_t>(key.tile), seed = static_cast<uint64_t>(key.seed);
  const uint32_t where = (static_cast<uint32_t>(key.layer) << 16) + first_block;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  const Wide m0 = splat_wide(0xD2511F53u), m2 = splat_wide(0xCD9E8D57u);
  Wide c0[kParts], c1[kParts], c2[kParts], c3[kParts];
  for (int i = 0; i < kParts; ++i) {
    c0[i] = splat_wide(token);
    c1[i] = counted(where + static_cast<uint32_t>(i * kWideLanes));
    c2[i] = splat_wide(static_cast<uint32_t>(tile));
    c3[i] = splat_wide(static_cast<uint32_t>(tile >> 32));
  }
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const Wide key0 = splat_wide(k0), key1 = splat_wide(k1);
    for (int i = 0; i < kParts; ++i) {
      const Wide a = product(c0[i], m0), b = product(c2[i], m2);
      c0[i] = xor3(high(b), c1[i], key0);
      c1[i] = b;
      c2[i] = xor3(high(a), c3[i], key1);
      c3[i] = a;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kParts; ++i) {
    uint32_t* to = words + i * kWideLanes;
    store_low(to, c0[i]);
    store_low(to + kPhiloxLanes, c1[i]);
    store_low(to + 2 * kPhiloxLanes, c2[i]);
    store_low(to + 3 * kPhiloxLanes, c3[i]);
  }
#else
  philox_words(key, token, first_block, words);
#endif
}

// Bit i: a's lane i >= b's.
inline uint32_t lanes_at_least(VecF a, VecF b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)));
#elif defined(SPR2Q_NEON)
  constexpr uint32_t kBits[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcgeq_f32(a.v, b.v), vld1q_u32(kBits)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= (a.v[i] >= b.v[i] ? 1u : 0u) << i;
  return bits;
#endif
}

// How far rough_gumbel may lie above the exact noise (never below it by more than 0.002): log2 of a
// mantissa taken as a straight line is short by up to 0.0861, times ln 2, and E is right to 0.1 %.
constexpr float kRoughError = 0.065f;

inline float rough_gumbel(uint32_t word) {
  const uint32_t twice = (word >> 8) << 1;
  const float u = static_cast<float>(static_cast<int32_t>(twice + (twice == 0 ? 1u : 0u)));
  // log_shared's steps with a polynomial of degree 2; u is 2^25 too large.
  const uint32_t shifted = float_bits(u) - 0x3f3504f3u;
  const float e = static_cast<float>((static_cast<int32_t>(shifted) >> 23) - 25);
  const float f = bits_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float p = 0.3332f + f * (-0.2437f + f * 0.1621f);
  const float exponential = -(e * 0.69314718f + f + f * f * (f * p - 0.5f));
  const float line = static_cast<float>(static_cast<int32_t>(float_bits(exponential)));
  return 88.0296919f - 8.26295829e-8f * line;  // ln 2 (127 - line / 2^23)
}

// row = logits (+ noise) of `count` classes, -3.4e38 behind them up to whole vectors.
inline void noisy(const float* logits, int64_t count, int64_t mode, const NoiseKey& key,
                  int64_t token, float* row) {
  for (int64_t first = 0; first < count; first += kNoiseGroup) {
    float noise[kNoiseGroup] = {};
    if (mode == kSampled) {
      uint32_t words[kNoiseGroup];
      fast_words(key, static_cast<uint32_t>(token), static_cast<uint32_t>(first / 4), words);
      for (int k = 0; k < kNoiseGroup; ++k) noise[k] = gumbel_of(words[k]);
    }
    const int64_t here = count - first < kNoiseGroup ? count - first : kNoiseGroup;
    for (int64_t k = 0; k < here; ++k) row[first + k] = logits[first + k] + noise[k];
  }
  for (int64_t k = count; k < chunks_of(count, kLanes) * kLanes; ++k) row[k] = -3.4e38f;
}

// The first index of the largest, by the reference's comparisons: NaN acts as it does there.
inline int32_t first_largest(const float* row, int64_t count) {
  int64_t k = kLanes;
  if (count >= kLanes) {
    VecF best = load(row), spread = best - best;
    for (; k + kLanes <= count; k += kLanes) {
      const VecF value = load(row + k);
      best = max(best, value);
      spread = spread + (value - value);  // NaN as soon as a value is NaN or infinite
    }
    const float top = largest(best);
    bool plain = sum(spread) == 0;
    float rest = top;
    for (; k < count; ++k) {
      plain = plain && row[k] == row[k];
      rest = row[k] > rest ? row[k] : rest;
    }
    for (k = 0; plain && k + kLanes <= count; k += kLanes) {
      const uint32_t found = lanes_at_least(load(row + k), splat(rest));
      if (found) return static_cast<int32_t>(k + __builtin_ctz(found));
    }
  }
  int64_t at = 0;
  for (k = 1; k < count; ++k) at = row[k] > row[at] ? k : at;
  return static_cast<int32_t>(at);
}

// The sampled class of one token. words and rough: room for whole groups of 64 classes.
inline int32_t choose(const float* logits, int64_t count, const NoiseKey& key, int64_t token,
                      uint32_t* words, float* rough) {
  VecF best = splat(-3.4e38f), spread = splat(0.0f);
  for (int64_t first = 0; first < count; first += kNoiseGroup) {
    uint32_t* word = words + first;
    float* row = rough + first;
    fast_words(key, static_cast<uint32_t>(token), static_cast<uint32_t>(first / 4), word);
    if (count - first >= kNoiseGroup) {
      for (int k = 0; k < kNoiseGroup; ++k) row[k] = logits[first + k] + rough_gumbel(word[k]);
    } else {
      for (int k = 0; k < kNoiseGroup; ++k) row[k] = rough_gumbel(word[k]);
      for (int64_t k = 0; k < count - first; ++k) row[k] += logits[first + k];
      for (int64_t k = count - first; k < kNoiseGroup; ++k) row[k] = -3.4e38f;
    }
    for (int k = 0; k < kNoiseGroup; k += kLanes) {
      const VecF value = load(row + k);
      best = max(best, value);
      spread = spread + (value - value);  // NaN as soon as a logit is NaN or infinite
    }
  }
  const float top = largest(best), odd = sum(spread);
  // float32 logits: the sum's own rounding grows with its size.
  const float least = top - kRoughError - 4e-7f * (top < 0 ? -top : top);
  float chosen = 0;
  int64_t at = -1;
  int candidates = 0;
  for (int64_t k = 0; k < count; k += kLanes) {
    const uint32_t found = lanes_at_least(load(rough + k), splat(least));
    if (!found) continue;
    candidates += __builtin_popcount(found);
    at = k + __builtin_ctz(found);
  }
  if (candidates == 1 && odd == 0) return static_cast<int32_t>(at);
  at = -1;
  for (int64_t k = 0; k < count; ++k) {
    if (odd == 0 && rough[k] < least) continue;
    const float exact = logits[k] + gumbel_of(words[k]);
    if (at < 0 || exact > chosen) {
      at = k;
      chosen = exact;
    }
  }
  return static_cast<int32_t>(at);
}

}  // namespace

void route(const Route& a) {
  parallel_for(a.batch * a.tokens, kTokensPerChunk, [&](int64_t begin, int64_t end) {
    const int64_t room = chunks_of(a.count, kNoiseGroup) * kNoiseGroup;
    float* rough = scratch<float>(1, 2 * room);
    uint32_t* words = reinterpret_cast<uint32_t*>(rough + room);
    for (int64_t n = begin; n < end; ++n) {
      const float* logits = a.logits.data + n * a.count;
      if (a.mode == kSampled) {
        const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
        a.classes.data[n] = choose(logits, a.count, key, a.first + n % a.tokens, words, rough);
      } else {
        a.classes.data[n] = first_largest(logits, a.count);
      }
    }
  });
}

void route_grad(const RouteGrad& a) {
  // The pool transposed, (states, padded classes): <pool[k], gprompt> has classes in the lanes.
  const int64_t width = chunks_of(a.count, kLanes) * kLanes;
  float* pool = scratch<float>(0, a.states * width);
  for (int64_t i = 0; i < a.states; ++i) {
    for (int64_t k = 0; k < width; ++k) {
      pool[i * width + k] = k < a.count ? a.pool.data[k * a.states + i] : 0.0f;
    }
  }
  parallel_for(a.batch * a.tokens, kTokensPerChunk, [&](int64_t begin, int64_t end) {
    float* row = scratch<float>(1, 2 * width);
    float* dc = row + width;
    for (int64_t n = begin; n < end; ++n) {
      const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
      noisy(a.logits.data + n * a.count, a.count, a.mode, key, n % a.tokens, row);
      const float* gprompt = a.gprompt.data + n * a.states;
      VecF best = load(row);
      for (int64_t k = kLanes; k < width; k += kLanes) best = max(best, load(row + k));
      const VecF top = splat(largest(best));
      VecF total = splat(0.0f), weighted = splat(0.0f);
      for (int64_t k = 0; k < width; k += kLanes) {
        VecF c = splat(0.0f);
        for (int64_t i = 0; i < a.states; ++i) {
          c = fma(splat(gprompt[i]), load(pool + i * width + k), c);
        }
        const VecF s = exp(load(row + k) - top);
        total = total + s;
        weighted = fma(s, c, weighted);
        store(row + k, s);
        store(dc + k, c);
      }
      const VecF share = splat(1.0f / sum(total));
      const VecF mean = splat(sum(weighted)) * share;
      for (int64_t k = 0; k < width; k += kLanes) {
        store(row + k, load(row + k) * share * (load(dc + k) - mean));
      }
      for (int64_t k = 0; k < a.count; ++k) a.glogits.data[n * a.count + k] = row[k];
    }
  });
}

void sort_tokens(const SortTokens& a) {
  const int64_t runs = chunks_of(a.tokens, kTokensPerRun), all = a.batch * runs;
  // place[sample][run][class]: how many of the run, then where its first one goes.
  int32_t* place = scratch<int32_t>(0, all * a.count);
  const auto each = [&](int64_t task, auto body) {
    const int64_t sample = task / runs, first = task % runs * kTokensPerRun;
    const int64_t last = first + kTokensPerRun < a.tokens ? first + kTokensPerRun : a.tokens;
    const int32_t* classes = a.classes.data + sample * a.tokens;
    int32_t* count = place + task * a.count;
    for (int64_t n = first; n < last; ++n) {
      body(sample, n, count + clamp_class(classes[n], a.count));
    }
  };
  std::memset(place, 0, sizeof(int32_t) * static_cast<size_t>(all * a.count));
  parallel_for(all, 1, [&](int64_t task, int64_t) {
    each(task, [](int64_t, int64_t, int32_t* at) { ++*at; });
  });
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    int32_t next = 0;
    for (int64_t k = 0; k < a.count; ++k) {
      for (int64_t run = 0; run < runs; ++run) {
        int32_t& entry = place[(sample * runs + run) * a.count + k];
        const int32_t here = entry;
        entry = next;
        next += here;
      }
    }
  }
  parallel_for(all, 1, [&](int64_t task, int64_t) {
    each(task, [&](int64_t sample, int64_t n, int32_t* at) {
      const int64_t to = (*at)++;  // beyond the last where order overlaps classes
      if (to < a.tokens) a.order.data[sample * a.tokens + to] = static_cast<int32_t>(sample * a.tokens + n);
    });
  });
  if (!a.inverse) return;
  parallel_for(a.batch * a.tokens, kTokensPerRun, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = a.order.data[i];
      if (row >= 0 && row < a.batch * a.tokens) a.inverse.data[row] = static_cast<int32_t>(i);
    }
  });
}

void add_prompt(const AddPrompt& a) {
  parallel_for(a.rows, kTokensPerRun, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const float* prompt = a.pool.data + clamp_class(a.classes.data[n], a.count) * a.states;
      const float* c = a.c.data + n * a.states;
      float* y = a.y.data + n * a.states;
      for (int64_t i = 0; i < a.states; ++i) y[i] = c[i] + prompt[i];
    }
  });
}

void add_prompt_grad(const AddPromptGrad& a) {
  const int64_t size = a.count * a.states;
  double* partial = scratch<double>(0, kPoolPartials * size);
  std::memset(partial, 0, sizeof(double) * static_cast<size_t>(kPoolPartials * size));
  parallel_for(kPoolPartials, 1, [&](int64_t run, int64_t) {
    double* pool = partial + run * size;
    for (int64_t n = run * a.rows / kPoolPartials; n < (run + 1) * a.rows / kPoolPartials; ++n) {
      double* to = pool + clamp_class(a.classes.data[n], a.count) * a.states;
      for (int64_t i = 0; i < a.states; ++i) to[i] += a.gy.data[n * a.states + i];
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    double total = 0;
    for (int64_t run = 0; run < kPoolPartials; ++run) total += partial[run * size + i];
    a.gpool.data[i] = static_cast<float>(total);
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
