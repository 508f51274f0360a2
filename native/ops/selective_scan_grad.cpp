// Reference of the gradients of SelectiveScan, in double. With a_t = exp(Delta_t A) and the adjoint
//   l_t = gy_t C_t + a_{t+1} l_{t+1}   (run backwards, l past the end is 0):
//   gC = sum_d gy h,  gB = sum_d l Delta u,  gA = sum_t l Delta a h_{t-1},  gD = sum_t gy u,
//   gu = D gy + sum_s l Delta B,  gDelta = sum_s l (A a h_{t-1} + B u),
//   gdelta = gDelta sigmoid(x),  x = delta + delta_bias
// (sigmoid counts as 1 above 20, where softplus is the identity).
// With state_bounds, C meets Q(h): gC takes Q(h), the direct part of l passes only inside the
// closed interval, and the bounds collect Eq. 8: h <= lower feeds lower, h >= upper feeds upper,
// and everywhere -e and +e times gy C with e = (round(v) - v) / L.
#include <cmath>
#include <vector>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

// Everything that is summed over rows or channels, in double until the end.
struct Sums {
  std::vector<double> A, B, C, D, bias;
  double lower = 0, upper = 0;
};

void round_to(const F32& out, const std::vector<double>& sums) {
  for (size_t i = 0; i < sums.size(); ++i) out.data[i] = static_cast<float>(sums[i]);
}

double softplus(double x) { return x <= 20 ? std::log1p(std::exp(x)) : x; }

// Gradient that reaches h through the copy that meets C; returns that copy in `seen`.
double through_copy(const SelectiveScanGrad& a, double h, double gradient, double* seen,
                    Sums* sums) {
  *seen = h;
  if (!a.state_bounds) return gradient;
  const float lower = a.state_bounds.data[0], upper = a.state_bounds.data[1];
  const float levels = static_cast<float>(a.state_levels());
  const float value = static_cast<float>(h);
  const float offset = (value - lower) * (levels / (upper - lower));
  const float clipped = std::fmin(std::fmax(offset, 0.0f), levels);
  const float code = std::nearbyintf(clipped);
  *seen = std::fmaf((upper - lower) / levels, code, lower);
  const double e = static_cast<double>(code - clipped) / levels;
  sums->lower += (value <= lower ? gradient : 0.0) - e * gradient;
  sums->upper += (value >= upper ? gradient : 0.0) + e * gradient;
  return lower <= value && value <= upper ? gradient : 0.0;
}

void one_channel(const SelectiveScanGrad& a, int64_t b, int64_t c, double* h, Sums* sums) {
  const int64_t states = a.state_count, row0 = b * a.length;
  const float* A = a.A.data + c * states;
  const auto delta_at = [&](int64_t t) {
    return softplus(static_cast<double>(a.delta.data[t * a.channels + c]) + a.delta_bias.data[c]);
  };
  for (int64_t s = 0; s < states; ++s) h[s] = 0;
  for (int64_t t = 0; t < a.length; ++t) {
    const double delta = delta_at(row0 + t), u = a.u.data[(row0 + t) * a.channels + c];
    for (int64_t s = 0; s < states; ++s) {
      h[(t + 1) * states + s] = std::exp(delta * A[s]) * h[t * states + s] +
                                delta * a.B.data[(row0 + t) * states + s] * u;
    }
  }
  double carry[64] = {};  // a_{t+1} l_{t+1}
  for (int64_t t = a.length - 1; t >= 0; --t) {
    const int64_t row = row0 + t, i = row * a.channels + c;
    const double x = static_cast<double>(a.delta.data[i]) + a.delta_bias.data[c];
    const double delta = softplus(x), u = a.u.data[i], gy = a.gy.data[i];
    double gu = a.D.data[c] * gy, gdelta = 0;
    for (int64_t s = 0; s < states; ++s) {
      double seen;
      const double direct =
          through_copy(a, h[(t + 1) * states + s], gy * a.C.data[row * states + s], &seen, sums);
      const double adjoint = direct + carry[s], decay = std::exp(delta * A[s]);
      const double decayed = decay * h[t * states + s], B = a.B.data[row * states + s];
      sums->C[row * states + s] += gy * seen;
      sums->B[row * states + s] += adjoint * delta * u;
      sums->A[c * states + s] += adjoint * delta * decayed;
      gu += adjoint * delta * B;
      gdelta += adjoint * (A[s] * decayed + B * u);
      carry[s] = decay * adjoint;
    }
    gdelta *= x > 20 ? 1.0 : 1.0 / (1.0 + std::exp(-x));
    sums->D[c] += gy * u;
    sums->bias[c] += gdelta;
    a.gu.data[i] = static_cast<float>(gu);
    a.gdelta.data[i] = static_cast<float>(gdelta);
  }
}

}  // namespace

void selective_scan_grad(const SelectiveScanGrad& a) {
  Sums sums;
  sums.A.assign(a.channels * a.state_count, 0.0);
  sums.B.assign(a.batch * a.length * a.state_count, 0.0);
  sums.C = sums.B;
  sums.D.assign(a.channels, 0.0);
  sums.bias = sums.D;
  std::vector<double> h((a.length + 1) * a.state_count);
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t c = 0; c < a.channels; ++c) one_channel(a, b, c, h.data(), &sums);
  }
  round_to(a.gA, sums.A);
  round_to(a.gB, sums.B);
  round_to(a.gC, sums.C);
  round_to(a.gD, sums.D);
  round_to(a.gdelta_bias, sums.bias);
  if (a.state_bounds) {
    a.gstate_bounds.data[0] = static_cast<float>(sums.lower);
    a.gstate_bounds.data[1] = static_cast<float>(sums.upper);
  }
}

}  // namespace ops
}  // namespace spr2q
