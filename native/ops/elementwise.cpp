// Element-wise ops and their gradients: gelu (exact, by erf), sigmoid_gate, multiply, add,
// negative_exp, scale over n values; scale_add, slice_columns over (rows, columns). Transcendental
// functions and column sums in double, the rest in float32.
#include <cmath>
#include <vector>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

constexpr double kInverseSqrt2 = 0.70710678118654752440;
constexpr double kInverseSqrt2Pi = 0.39894228040143267794;

// Distribution function of the standard normal; erfc keeps its digits in the lower tail.
double normal_below(double x) { return 0.5 * std::erfc(-x * kInverseSqrt2); }
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace

void gelu(const Gelu& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const double x = a.x.data[i];
    a.y.data[i] = static_cast<float>(x * normal_below(x));
  }
}

void gelu_grad(const GeluGrad& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const double x = a.x.data[i];
    const double slope = normal_below(x) + x * kInverseSqrt2Pi * std::exp(-0.5 * x * x);
    a.gx.data[i] = static_cast<float>(slope * a.gy.data[i]);
  }
}

void sigmoid_gate(const SigmoidGate& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    a.y.data[i] = static_cast<float>(a.x.data[i] * sigmoid(a.gate.data[i]));
  }
}

void sigmoid_gate_grad(const SigmoidGateGrad& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const double s = sigmoid(a.gate.data[i]), gy = a.gy.data[i];
    a.gx.data[i] = static_cast<float>(gy * s);
    a.ggate.data[i] = static_cast<float>(gy * a.x.data[i] * s * (1.0 - s));
  }
}

void multiply(const Multiply& a) {
  for (int64_t i = 0; i < a.n; ++i) a.y.data[i] = a.a.data[i] * a.b.data[i];
}

void add(const Add& a) {
  for (int64_t i = 0; i < a.n; ++i) a.y.data[i] = a.a.data[i] + a.b.data[i];
}

void negative_exp(const NegativeExp& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    a.y.data[i] = static_cast<float>(-std::exp(static_cast<double>(a.x.data[i])));
  }
}

void scale(const Scale& a) {
  const float factor = static_cast<float>(a.factor);
  for (int64_t i = 0; i < a.n; ++i) a.y.data[i] = factor * a.x.data[i];
}

void scale_add(const ScaleAdd& a) {
  for (int64_t i = 0; i < a.rows * a.channels; ++i) {
    a.y.data[i] = std::fma(a.scale.data[i % a.channels], a.x.data[i], a.a.data[i]);
  }
}

void scale_add_grad(const ScaleAddGrad& a) {
  std::vector<double> gscale(a.channels, 0.0);
  for (int64_t i = 0; i < a.rows * a.channels; ++i) {
    const int64_t c = i % a.channels;
    a.gx.data[i] = a.scale.data[c] * a.gy.data[i];
    gscale[c] += static_cast<double>(a.x.data[i]) * a.gy.data[i];
  }
  for (int64_t c = 0; c < a.channels; ++c) a.gscale.data[c] = static_cast<float>(gscale[c]);
}

void slice_columns(const SliceColumns& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t c = 0; c < a.count; ++c) {
      a.y.data[row * a.count + c] = a.x.data[row * a.columns + a.start + c];
    }
  }
}

void slice_columns_grad(const SliceColumnsGrad& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t c = 0; c < a.columns; ++c) {
      const bool inside = c >= a.start && c < a.start + a.count;
      a.gx.data[row * a.columns + c] = inside ? a.gy.data[row * a.count + c - a.start] : 0.0f;
    }
  }
}

}  // namespace ops
}  // namespace spr2q
