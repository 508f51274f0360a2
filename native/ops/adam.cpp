// One step of Adam (Kingma and Ba, algorithm 1), in place over many tensors: parameters, m and v are
// read and written. The readable reference: each value's update in double, rounded once on store.
#include <cmath>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void adam(const Adam& a) {
  const double m_correction = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double v_correction = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  for (int64_t t = 0; t < a.parameters.size; ++t) {
    const F32 parameter = a.parameters[t];
    for (int64_t i = 0; i < parameter.size; ++i) {
      const double g = a.gradients[t].data[i];
      const double m = a.beta1 * a.m[t].data[i] + (1.0 - a.beta1) * g;
      const double v = a.beta2 * a.v[t].data[i] + (1.0 - a.beta2) * g * g;
      const double root = std::sqrt(v / v_correction);
      const double change = a.rates.data[t] * (m / m_correction) / (root + a.epsilon);
      parameter.data[i] = static_cast<float>(parameter.data[i] - change);
      a.m[t].data[i] = static_cast<float>(m);
      a.v[t].data[i] = static_cast<float>(v);
    }
  }
}

}  // namespace ops
}  // namespace spr2q
