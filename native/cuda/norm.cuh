// Mean and deviation of a row by one warp, as every kernel that normalises takes them.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr float kEpsilon = 1e-5f;  // added to the variance, as in both backbones

struct Moments {
  float mean, reciprocal;
};

SPR2Q_DEVICE Moments moments(const float* x, int64_t channels) {
  const float share = 1.0f / static_cast<float>(channels);
  float sum = 0.0f, squares = 0.0f;
  for (int64_t c = lane_index(); c < channels; c += kWarp) sum += x[c];
  const float mean = warp_sum(sum) * share;
  // The mean's own rounding error, then squares about the corrected mean.
  float rest = 0.0f;
  for (int64_t c = lane_index(); c < channels; c += kWarp) rest += x[c] - mean;
  const float correction = warp_sum(rest) * share;
  for (int64_t c = lane_index(); c < channels; c += kWarp) {
    const float distance = (x[c] - mean) - correction;
    squares = fmaf(distance, distance, squares);
  }
  const float variance = warp_sum(squares) * share;
  return {mean + correction, 1.0f / sqrtf(variance + kEpsilon)};
}

// A row of LayerNorm, by the whole warp.
SPR2Q_DEVICE void norm_row(const LayerNorm& a, int64_t row) {
  const float* x = a.x.data + row * a.channels;
  const Moments m = moments(x, a.channels);
  for (int64_t c = lane_index(); c < a.channels; c += kWarp) {
    const float h = (x[c] - m.mean) * m.reciprocal;
    a.y.data[row * a.channels + c] = fmaf(h, a.weight.data[c], a.bias.data[c]);
  }
}

}  // namespace cuda
}  // namespace spr2q
