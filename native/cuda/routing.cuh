// The choice of a token's class and the prompt that the class adds to C: what their own kernels
// (routing.cu) and their places in a segment (segment.cu) do to a token.
#pragma once
#include "../core/philox.hpp"
#include "device.cuh"

namespace spr2q {
namespace cuda {

SPR2Q_DEVICE int64_t clamp_class(int32_t label, int64_t count) {
  return label < 0 ? 0 : label >= count ? count - 1 : label;
}

constexpr float kInfinity = __builtin_inff();

// The class of token n, of which kPhiloxLanes neighbouring lanes look at a share of the classes each;
// every lane of the warp calls it. `more` is added to the tile, which a recorded graph cannot change.
SPR2Q_DEVICE void route_token(const Route& a, const int64_t* more, int64_t n) {
  const bool inside = n < a.batch * a.tokens;
  const int lane = static_cast<int>(threadIdx.x) % kPhiloxLanes;
  const NoiseKey key{a.seed, a.tile + (more ? *more : 0) + n / a.tokens, a.layer};
  const uint32_t token = static_cast<uint32_t>(a.first + n % a.tokens);
  float best = -kInfinity;
  int64_t choice = a.count;
  for (int64_t base = 0; base < a.count; base += kNoiseGroup) {
    uint32_t words[4] = {0, 0, 0, 0};
    if (a.mode == kSampled) {
      philox_block(key, token, static_cast<uint32_t>(base / 4 + lane), words);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t k = base + kPhiloxLanes * i + lane;
      if (!inside || k >= a.count) continue;
      float value = a.logits.data[n * a.count + k];
      if (a.mode == kSampled) value += gumbel_of(words[i]);
      // NaN never beats another class, and is never beaten where it comes first.
      if (value != value) value = k == 0 ? kInfinity : -kInfinity;
      if (value > best || (value == best && k < choice)) {
        best = value;
        choice = k;
      }
    }
  }
#pragma unroll
  for (int step = kPhiloxLanes / 2; step > 0; step /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best, step);
    const int64_t k = __shfl_xor_sync(kAllLanes, choice, step);
    if (value > best || (value == best && k < choice)) {
      best = value;
      choice = k;
    }
  }
  if (inside && lane == 0) a.classes.data[n] = static_cast<int32_t>(choice);
}

SPR2Q_DEVICE float prompted(const AddPrompt& a, int64_t row, int64_t state) {
  const int64_t label = clamp_class(a.classes.data[row], a.count);
  return a.c.data[row * a.states + state] + a.pool.data[label * a.states + state];
}

}  // namespace cuda
}  // namespace spr2q
