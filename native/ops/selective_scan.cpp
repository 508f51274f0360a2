// Reference of the selective scan of Mamba, one direction, one group (specs: ASSM step g):
//   Delta = softplus(delta + delta_bias),  h_t = exp(Delta A) h_{t-1} + Delta B_t u_t,  h_{-1} = 0,
//   y_t = D u_t + sum_s C_t[s] h_t[s].
// u, delta, y (batch, length, channels); A (channels, states); B, C (batch, length, states). The
// state is kept in double; where state_bounds is given, the copy of h that meets C is rounded to
// float32 and passes through Eq. 1, while the recurrence goes on with the unrounded one.
#include <cmath>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void selective_scan(const SelectiveScan& a) {
  const float levels = static_cast<float>(a.state_levels());
  const float lower = a.state_bounds ? a.state_bounds.data[0] : 0.0f;
  const float range = a.state_bounds ? a.state_bounds.data[1] - lower : 1.0f;
  const float inverse = levels / range, step = range / levels;
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t c = 0; c < a.channels; ++c) {
      double h[64] = {};
      for (int64_t t = b * a.length; t < (b + 1) * a.length; ++t) {
        const int64_t i = t * a.channels + c;
        const double x = static_cast<double>(a.delta.data[i]) + a.delta_bias.data[c];
        const double delta = x <= 20 ? std::log1p(std::exp(x)) : x;
        const double u = a.u.data[i];
        double y = a.D.data[c] * u;
        for (int64_t s = 0; s < a.state_count; ++s) {
          h[s] = std::exp(delta * a.A.data[c * a.state_count + s]) * h[s] +
                 delta * a.B.data[t * a.state_count + s] * u;
          double seen = h[s];
          if (a.state_bounds) {
            const float offset = (static_cast<float>(h[s]) - lower) * inverse;
            const float clipped = std::fmin(std::fmax(offset, 0.0f), levels);
            seen = std::fmaf(step, std::nearbyintf(clipped), lower);
          }
          y += a.C.data[t * a.state_count + s] * seen;
          if (a.states) a.states.data[i * a.state_count + s] = static_cast<float>(h[s]);
        }
        a.y.data[i] = static_cast<float>(y);
      }
    }
  }
}

}  // namespace ops
}  // namespace spr2q
