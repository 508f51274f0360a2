// Layer normalisation of each row over its channels: y = (x - mean) / sqrt(variance + 1e-5)
// * weight + bias, variance without Bessel's correction. x, y, gy, gx: (rows, channels); weight,
// bias: (channels). The gradient recomputes mean and variance from x; with h = (x - mean) * r,
// r = 1 / sqrt(variance + 1e-5), g = gy * weight:
//   gx = r * (g - mean(g) - h * mean(g h)), gweight = sum over rows of gy h, gbias = sum of gy.
#include <cmath>
#include <vector>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

constexpr double kEpsilon = 1e-5;  // added to the variance, as in both backbones

struct Moments {
  double mean, reciprocal;
};

Moments moments(const float* x, int64_t channels) {
  double mean = 0, variance = 0;
  for (int64_t c = 0; c < channels; ++c) mean += x[c];
  mean /= static_cast<double>(channels);
  for (int64_t c = 0; c < channels; ++c) variance += (x[c] - mean) * (x[c] - mean);
  variance /= static_cast<double>(channels);
  return {mean, 1.0 / std::sqrt(variance + kEpsilon)};
}

}  // namespace

void layer_norm(const LayerNorm& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* x = a.x.data + row * a.channels;
    float* y = a.y.data + row * a.channels;
    const Moments m = moments(x, a.channels);
    for (int64_t c = 0; c < a.channels; ++c) {
      const double h = (x[c] - m.mean) * m.reciprocal;
      y[c] = static_cast<float>(h * a.weight.data[c] + a.bias.data[c]);
    }
  }
}

void layer_norm_grad(const LayerNormGrad& a) {
  std::vector<double> gweight(a.channels, 0.0), gbias(a.channels, 0.0);
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* x = a.x.data + row * a.channels;
    const float* gy = a.gy.data + row * a.channels;
    float* gx = a.gx.data + row * a.channels;
    const Moments m = moments(x, a.channels);
    double mean_g = 0, mean_gh = 0;
    for (int64_t c = 0; c < a.channels; ++c) {
      const double h = (x[c] - m.mean) * m.reciprocal;
      const double g = static_cast<double>(gy[c]) * a.weight.data[c];
      mean_g += g;
      mean_gh += g * h;
      gweight[c] += gy[c] * h;
      gbias[c] += gy[c];
    }
    mean_g /= static_cast<double>(a.channels);
    mean_gh /= static_cast<double>(a.channels);
    for (int64_t c = 0; c < a.channels; ++c) {
      const double h = (x[c] - m.mean) * m.reciprocal;
      const double g = static_cast<double>(gy[c]) * a.weight.data[c];
      gx[c] = static_cast<float>(m.reciprocal * (g - mean_g - h * mean_gh));
    }
  }
  for (int64_t c = 0; c < a.channels; ++c) {
    a.gweight.data[c] = static_cast<float>(gweight[c]);
    a.gbias.data[c] = static_cast<float>(gbias[c]);
  }
}

}  // namespace ops
}  // namespace spr2q
