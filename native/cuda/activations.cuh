// Activations of one value, as every kernel computes them.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr float kInverseSqrt2 = 0.70710678f;
constexpr float kInverseSqrt2Pi = 0.39894228f;

// Distribution function of the standard normal. erfc keeps its digits in the lower tail, erf has
// the smaller error in the upper one.
SPR2Q_DEVICE float normal_below(float x) {
  return x < 0.0f ? 0.5f * erfcf(-x * kInverseSqrt2) : 0.5f + 0.5f * erff(x * kInverseSqrt2);
}
SPR2Q_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
SPR2Q_DEVICE float gelu_of(float x) { return x * normal_below(x); }

}  // namespace cuda
}  // namespace spr2q
