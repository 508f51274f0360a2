// The router's noise: counter-based, so that a token's draw depends on what it is and not on when
// or where it is computed. Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011) turns key = seed and counter = (token, layer and block, tile) into four words.
// Class k takes word (k / 16) % 4 of block 16 (k / 64) + k % 16: sixteen blocks make the words of
// 64 classes in class order, one lane per block. A word's upper 24 bits make U in (0, 1), and
// noise = -log(-log U), a Gumbel variable, by log_shared: the same bits on every backend.
#pragma once
#include "exponent.hpp"

namespace spr2q {

constexpr int kPhiloxRounds = 10;
constexpr int kPhiloxLanes = 16;                  // blocks computed side by side
constexpr int kNoiseGroup = 4 * kPhiloxLanes;     // classes that one such batch serves

// What identifies one token's draws; `tile` already includes the sample's index.
struct NoiseKey {
  int64_t seed, tile, layer;
};

// words[16 i + lane]: word i of block first_block + lane. The counter is (token, layer * 2^16 +
// block, tile low, tile high), so layers and blocks below 65536 never meet. Whole lanes a step: the
// compiler makes vectors of the inner loops.
SPR2Q_SHARED void philox_words(const NoiseKey& key, uint32_t token, uint32_t first_block,
                                uint32_t words[kNoiseGroup]) {
  const uint32_t where = (static_cast<uint32_t>(key.layer) << 16) + first_block;
  const uint64_t tile = static_cast<uint64_t>(key.tile), seed = static_cast<uint64_t>(key.seed);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t *c0 = words, *c1 = c0 + kPhiloxLanes;
  uint32_t *c2 = c1 + kPhiloxLanes, *c3 = c2 + kPhiloxLanes;
  for (int lane = 0; lane < kPhiloxLanes; ++lane) {
    c0[lane] = token;
    c1[lane] = where + static_cast<uint32_t>(lane);
    c2[lane] = static_cast<uint32_t>(tile);
    c3[lane] = static_cast<uint32_t>(tile >> 32);
  }
  uint32_t high0[kPhiloxLanes], high2[kPhiloxLanes];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int lane = 0; lane < kPhiloxLanes; ++lane) {
      high0[lane] = static_cast<uint32_t>((static_cast<uint64_t>(c0[lane]) * 0xD2511F53u) >> 32);
      high2[lane] = static_cast<uint32_t>((static_cast<uint64_t>(c2[lane]) * 0xCD9E8D57u) >> 32);
    }
    for (int lane = 0; lane < kPhiloxLanes; ++lane) {
      const uint32_t low0 = c0[lane] * 0xD2511F53u, low2 = c2[lane] * 0xCD9E8D57u;
      c0[lane] = high2[lane] ^ c1[lane] ^ k0;
      c1[lane] = low2;
      c2[lane] = high0[lane] ^ c3[lane] ^ k1;
      c3[lane] = low0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// The four words of one block: a lane of philox_words, for code that runs a lane to a thread.
SPR2Q_SHARED void philox_block(const NoiseKey& key, uint32_t token, uint32_t block,
                               uint32_t words[4]) {
  const uint64_t tile = static_cast<uint64_t>(key.tile), seed = static_cast<uint64_t>(key.seed);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = token, c1 = (static_cast<uint32_t>(key.layer) << 16) + block;
  uint32_t c2 = static_cast<uint32_t>(tile), c3 = static_cast<uint32_t>(tile >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t product2 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(product2 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product2);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// -log(-log U), U = the upper 24 bits over 2^24, 2^-25 where they are all zero: from -2.85 to 16.6.
SPR2Q_SHARED float gumbel_of(uint32_t word) {
  const uint32_t twice = (word >> 8) << 1;
  const int32_t cell = static_cast<int32_t>(twice + (twice == 0 ? 1u : 0u));
  const float u = static_cast<float>(cell) * 2.98023223876953125e-8f;
  return -log_shared(-log_shared(u));
}

// noise[k] of classes 0 ... count-1 of one token.
SPR2Q_SHARED void gumbel_noise(const NoiseKey& key, int64_t token, int64_t count, float* noise) {
  for (int64_t first = 0; first < count; first += kNoiseGroup) {
    uint32_t words[kNoiseGroup];
    philox_words(key, static_cast<uint32_t>(token), static_cast<uint32_t>(first / 4), words);
    float group[kNoiseGroup];
    for (int k = 0; k < kNoiseGroup; ++k) group[k] = gumbel_of(words[k]);
    const int64_t here = count - first < kNoiseGroup ? count - first : kNoiseGroup;
    std::memcpy(noise + first, group, sizeof(float) * static_cast<size_t>(here));
  }
}

}  // namespace spr2q
