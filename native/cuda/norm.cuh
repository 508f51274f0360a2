// Mean and deviation of a row by one warp, as every kernel that normalises takes them.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr float kEpsilon = 1e-5f;  // added to the variance, as in both backbones

struct Moments {
  float mean, reciprocal;
};

// Of kRows rows at once, each by the same operations in the same order as alone: what one row waits
// for overlaps with the others.
template <int kRows>
SPR2Q_DEVICE void moments_of(const float* const (&x)[kRows], int64_t channels,
                             Moments (&moments)[kRows]) {
  const float share = 1.0f / static_cast<float>(channels);
  float sum[kRows] = {}, rest[kRows] = {}, squares[kRows] = {}, mean[kRows];
  const auto sum_over_lanes = [](float(&values)[kRows]) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) values[r] += __shfl_xor_sync(kAllLanes, values[r], step);
    }
  };
  for (int64_t c = lane_index(); c < channels; c += kWarp) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] += x[r][c];
  }
  sum_over_lanes(sum);
#pragma unroll
  for (int r = 0; r < kRows; ++r) mean[r] = sum[r] * share;
  // The mean's own rounding error, then squares about the corrected mean.
  for (int64_t c = lane_index(); c < channels; c += kWarp) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) rest[r] += x[r][c] - mean[r];
  }
  sum_over_lanes(rest);
#pragma unroll
  for (int r = 0; r < kRows; ++r) rest[r] *= share;
  for (int64_t c = lane_index(); c < channels; c += kWarp) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float distance = (x[r][c] - mean[r]) - rest[r];
      squares[r] = fmaf(distance, distance, squares[r]);
    }
  }
  sum_over_lanes(squares);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    moments[r] = {mean[r] + rest[r], 1.0f / sqrtf(squares[r] * share + kEpsilon)};
  }
}
SPR2Q_DEVICE Moments moments(const float* x, int64_t channels) {
  const float* const rows[1] = {x};
  Moments result[1];
  moments_of(rows, channels, result);
  return result[0];
}

// The first kRows of `rows`, or as many as there are, of LayerNorm, by the whole warp.
template <int kRows>
SPR2Q_DEVICE void norm_rows(const LayerNorm& a, const Rows& rows) {
  const float* x[kRows];
  Moments m[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) x[r] = a.x.data + rows[r < rows.count ? r : 0] * a.channels;
  moments_of(x, a.channels, m);
  for (int64_t c = lane_index(); c < a.channels; c += kWarp) {
    const float weight = a.weight.data[c], bias = a.bias.data[c];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows.count) continue;
      const float h = (x[r][c] - m[r].mean) * m[r].reciprocal;
      a.y.data[rows[r] * a.channels + c] = fmaf(h, weight, bias);
    }
  }
}

}  // namespace cuda
}  // namespace spr2q
